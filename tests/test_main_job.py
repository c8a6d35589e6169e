"""The main job, whole: from the admin's form over a cron minute to the people edited at 滴滴企业版."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.program import Person, Program
from tests.standins.__main__ import job_settings
from tests.standins.dataset import Dataset, make_dataset
from tests.standins.didi import DidiStandin
from tests.standins.oa import OaStandin

CLASS = "SyncOAToDidiLegalEntitySyncJob"


@pytest.fixture
def data() -> Dataset:
    return make_dataset(1250)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with Program(tmp_path / "ConnectHub 试用") as program:
        yield program


def wait_for_end(program: Program, seconds: float) -> asyncpg.Record:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rows = program.fetch(
            "SELECT * FROM job_logs WHERE job_id = 'oa-to-didi' AND finished_at IS NOT NULL"
            " AND status <> 'SKIPPED' ORDER BY id"  # at the next mark it may still be going
        )
        if rows:
            return rows[0]
        time.sleep(0.5)
    raise AssertionError("no run has ended:\n" + "".join(program.lines))


def test_the_main_job(program: Program, standins: tuple[OaStandin, DidiStandin], data: Dataset) -> None:
    oa, didi = standins
    public, secret = job_settings(oa.url, didi.url)[CLASS]
    person = Person(program.url)
    assert person.get("/health").json() == {"ok": True, "name": "ConnectHub"}
    assert person.get("/admin/jobs/list").status_code in (302, 303), "nobody is signed in yet"
    person.sign_in(program.password)
    created = person.fill(
        "/admin/jobs/create",
        {
            "id": "oa-to-didi",
            "name": "OA 任职公司同步到滴滴",
            "cron_expr": "* * * * *",
            "timezone": "Asia/Shanghai",
            "handler_path": f"extensions.sync_oa_to_didi.job:{CLASS}",
            "public_cfg": json.dumps(public),
            "secret_cfg": json.dumps(secret),
        },
    )
    assert created.status_code in (302, 303), created.text

    row = wait_for_end(program, 150)
    expected = data.expected
    result = json.loads(row["result"])
    assert (row["status"], row["trigger"], row["attempt"]) == ("SUCCESS", "schedule", 1), row["message"]
    assert row["scheduled_for"].second == 0
    late_s = (row["started_at"] - row["scheduled_for"]).total_seconds()
    assert 0 <= late_s < 5, f"started {late_s} s after its minute"
    figures = {
        "total": 1250,
        "success": expected.success,
        "skipped": expected.skipped,
        "failed": expected.failed,
    }
    assert {name: result[name] for name in figures} == figures
    assert len(result["errors"]) == min(50, expected.failed)

    assert didi.edited() == expected.edits
    assert not oa.violations and not didi.violations, (
        "the stand-ins check signatures, tokens and the interval"
    )
    assert min(edit["gap_ms"] for edit in didi.edits[1:]) >= 150

    page = person.get(f"/admin/joblogs/details/{row['id']}")
    assert page.status_code == 200
    assert "oa-to-didi" in page.text and str(expected.success) in page.text
    stored = str(
        program.fetch("SELECT l.*, s.snapshot_params FROM job_logs l JOIN job_log_snapshots s USING (id)")
    )
    log_file = (program.data / "logs" / "connecthub.log").read_text()
    for name, value in secret.items():
        if name in ("rest_password", "client_secret", "sign_key"):
            for place in (page.text, stored, log_file, "".join(program.lines)):
                assert value not in place, name
    assert program.stop() == 0
