"""Keys are rotated while two hubs are busy, and the rotation is killed in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connecthub.security.keyfile import read_keys
from connecthub.security.vault import Vault
from tests.faults.stage import Hub, Stage

JOBS = 200
POINT = "CONNECTHUB_FAILPOINT"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def queue_all(stage: Stage) -> None:
    """A run of each Job; each of them decrypts its secret."""
    stage.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
        " SELECT id, revision_id, 'manual', 'QUEUED', gen_random_uuid()::text FROM jobs"
    )
    stage.sql("SELECT pg_notify('connecthub', 'run')")


@pytest.mark.ci
def test_a_rotation_that_is_killed_under_load_goes_on_and_no_run_misses_its_secret(stage: Stage) -> None:
    for number in range(JOBS):
        stage.job(f"job-{number:03}", "AsyncJob", {"seconds": 0.2})
    stage.hub()
    stage.hub()
    key_file = stage.folder / "data" / "fernet.key"
    operator = Hub(stage.folder, stage.settings())

    queue_all(stage)
    killed = Hub(stage.folder, {**stage.settings(), POINT: "keys.after_batch:kill:2"}).run_command(
        "key", "rotate"
    )
    assert killed.returncode == -9, killed.stderr
    newest, oldest = read_keys(key_file)
    tokens = [row["secret_cfg"] for row in stage.sql("SELECT secret_cfg FROM jobs")]
    of_newest = sum(Vault([newest.fernet]).fits(token) for token in tokens)
    assert 0 < of_newest < JOBS, "it was killed in the middle"

    queue_all(stage)
    refused = operator.run_command("key", "retire")
    assert refused.returncode == 2 and f"key {oldest.id} by " in refused.stderr
    queue_all(stage)
    assert f"key {newest.id} was there" in operator.command("key", "rotate")
    queue_all(stage)
    assert oldest.id in operator.command("key", "retire")
    queue_all(stage)
    late = stage.hub()  # knows the new key only
    queue_all(stage)

    stage.settle(240)
    states = stage.sql("SELECT status, reason, count(*) FROM job_logs GROUP BY 1, 2")
    assert [tuple(row) for row in states] == [("SUCCESS", None, 6 * JOBS)]
    assert stage.judge().is_clean
    assert stage.value("SELECT count(*) FROM job_revisions") == JOBS, "a rotation makes no revision"
    assert late.process.poll() is None
