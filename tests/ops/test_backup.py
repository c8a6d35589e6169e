"""Backups as they happen: beside busy hubs, on full disks, between versions, and by copying a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from connecthub.storage.database import Database
from connecthub.storage.embedded_binaries import service_account
from tests.faults.conftest import needs
from tests.faults.stage import NEVER, Hub, Stage
from tests.program import ROOT, Person, Program

MANY = 2000
OLD = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def command(stage: Stage, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command on the stage's database, to its end."""
    hub = Hub(stage.folder, {**stage.settings(), **environ})
    return hub.run_command(*words)


def restore(stage: Stage, file: Path, *options: str) -> None:
    """A restore that succeeds. The stage's own connections look like those of a hub, and would forbid it."""
    stage.do(stage.db.close())
    done = command(stage, "restore", str(file), *options)
    assert done.returncode == 0, done.stderr
    stage.db = stage.do(Database.open(stage.postgres.dsn, size=3))


def queue(stage: Stage, count: int) -> None:
    """Runs of all Jobs, by one statement."""
    stage.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
        " SELECT j.id, j.revision_id, 'manual', 'QUEUED', gen_random_uuid()::text"
        " FROM generate_series(1, $1) n JOIN jobs j ON j.id = 'job-' || n % 20",
        count,
    )
    stage.sql("SELECT pg_notify('connecthub', 'run')")


def counts(stage: Stage) -> dict[str, int]:
    """Runs by status."""
    rows = stage.sql("SELECT status, count(*) FROM job_logs GROUP BY 1")
    return {row["status"]: row["count"] for row in rows}


@pytest.mark.ci
def test_a_backup_beside_a_busy_hub_is_one_moment_and_comes_back_paused(stage: Stage) -> None:
    for number in range(20):
        stage.job(f"job-{number}", "AsyncJob", {"seconds": 0.05})
    hub = stage.hub()
    queue(stage, MANY)
    stage.until(lambda: counts(stage).get("SUCCESS", 0) > 20)
    file = stage.folder / "busy.zip"
    made = command(stage, "backup", str(file), "--with-key")
    assert made.returncode == 0, made.stderr
    assert counts(stage).get("QUEUED", 0) > 0, "the hub was busy all the time"
    with zipfile.ZipFile(file) as archive:
        manifest: dict[str, Any] = json.loads(archive.read("manifest.json"))
    assert 0 < manifest["going"] < MANY == manifest["counts"]["job_logs"]

    refused = command(stage, "restore", str(file), "--replace", "--yes")
    assert refused.returncode == 2 and "may be alive: stop it" in refused.stderr
    stage.until(lambda: counts(stage) == {"SUCCESS": MANY}, 240)
    assert not stage.judge().faults
    ended = {row["id"]: row["result"] for row in stage.sql("SELECT id, result FROM job_logs")}
    assert hub.stop() == 0

    stage.sql("DELETE FROM jobs WHERE id = 'job-3'")
    (stage.folder / "data" / "fernet.key").unlink()
    restore(stage, file, "--replace", "--yes")
    going = manifest["going"]
    assert counts(stage) == {"SUCCESS": MANY - going, "LOST": going}
    for row in stage.sql("SELECT id, result FROM job_logs WHERE status = 'SUCCESS'"):
        assert ended[row["id"]] == row["result"]
    assert stage.value("SELECT count(*) FROM jobs") == 20

    hub = stage.hub()
    run_id = stage.run("job-3")
    stage.sql("UPDATE jobs SET cron_expr = '* * * * *' WHERE id = 'job-4'")
    stage.until_ticked()
    assert stage.row(run_id)["status"] == "QUEUED" and stage.value(
        "SELECT count(*) = 0 FROM job_logs WHERE trigger = 'schedule'"
    )
    assert command(stage, "resume").returncode == 0
    assert stage.wait(run_id)["reason"] is None, "its secret was decrypted with the key of the backup"
    assert hub.stop() == 0


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk that is soon full."""
    needs("root, to mount a small disk", os.geteuid() == 0)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(stage: Stage, megabytes: int) -> None:
    """Runs with logs that cannot be compressed."""
    stage.job("job-0", "AsyncJob")
    for _ in range(megabytes):
        logs = [b64encode(os.urandom(37_500)).decode() for _ in range(20)]
        stage.sql(
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, finished_at,"
            " run_log) SELECT id, revision_id, 'manual', 'SUCCESS', 'k', now(), log"
            " FROM jobs, unnest($1::text[]) log",
            logs,
        )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_a_full_disk_leaves_no_backup_and_the_keys_as_they_were(stage: Stage) -> None:
    fill(stage, 20)
    assert command(stage, "resume").returncode == 0
    with disk(stage.folder / "small", 4) as small:
        line = one_line(command(stage, "backup", str(small / "b.zip")))
        assert "No space left on device" in line and "nothing is left there" in line
        assert list(small.iterdir()) == []
        key = small / "fernet.key"
        shutil.copy(stage.folder / "data" / "fernet.key", key)
        kept = key.read_bytes()
        jobs = small / "jobs.toml"
        assert command(stage, "job", "export", "-o", str(jobs)).returncode == 0
        exported = jobs.read_bytes()
        with open(small / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(b"0" * 4096)
        full = command(stage, "key", "rotate", CONNECTHUB_SECURITY__FERNET_KEY_PATH=str(key))
        assert "No space left on device" in one_line(full)
        assert "No space left on device" in one_line(command(stage, "job", "export", "-o", str(jobs)))
        assert key.read_bytes() == kept and jobs.read_bytes() == exported
        assert sorted(p.name for p in small.iterdir()) == ["ballast", "fernet.key", "jobs.toml"]


def test_a_disk_that_fills_up_during_a_restore_undoes_it(stage: Stage) -> None:
    fill(stage, 60)
    file = stage.folder / "big.zip"
    made = command(stage, "backup", str(file), "--with-key")
    assert made.returncode == 0, made.stderr
    with disk(stage.folder / "small", 130) as small:
        there = {"CONNECTHUB_DATABASE__URL": "", "CONNECTHUB_DATA__DIR": str(small / "data")}
        assert command(stage, "migrate", **there).returncode == 0
        line = one_line(command(stage, "restore", str(file), "--replace", "--yes", **there))
        assert "nothing was restored, the database is as it was" in line
        assert not (small / "data" / "fernet.key").exists()
        subprocess.run(["mount", "-o", "remount,size=400m", small], check=True)  # somebody makes room
        empty = command(stage, "check", "--json", **there)
        schema = next(one for one in json.loads(empty.stdout)["checks"] if one["name"] == "schema")
        assert schema["state"] == "ok"


def test_an_embedded_postgresql_on_a_full_disk_says_so(stage: Stage) -> None:
    with disk(stage.folder / "small", 100) as small:
        there = {"CONNECTHUB_DATABASE__URL": "", "CONNECTHUB_DATA__DIR": str(small / "data")}
        assert command(stage, "migrate", **there).returncode == 0
        with open(small / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(b"0" * 4096)
        for words in (["serve"], ["job", "list"], ["backup", str(stage.folder / "none.zip")]):
            line = one_line(command(stage, *words, **there))
            assert "its disk is full, 0 MiB are left: make room" in line
        assert not (stage.folder / "none.zip").exists()
        (small / "ballast").unlink()
        assert command(stage, "job", "list", **there).returncode == 0


@pytest.fixture
def old_server(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database on PostgreSQL 15."""
    needs("PostgreSQL 15 (apt install postgresql-15)", (OLD / "initdb").exists())
    folder = tmp_path / "old"
    folder.mkdir()
    account = service_account(folder, folder / "none")
    os.chown(folder, account.uid, account.gid)
    folder.chmod(0o711)
    for above in folder.parents[:3]:
        above.chmod(above.stat().st_mode | 0o111)
    status, said = account.run(
        [OLD / "initdb", "-D", folder / "db", "-A", "trust", "-U", "connecthub"], cwd=folder
    )
    assert status == 0, said
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    control: list[str | Path] = [OLD / "pg_ctl", "-D", folder / "db", "-w", "-l", folder / "log"]
    status, said = account.run([*control, "-o", options, "start"], cwd=folder)
    assert status == 0, said
    yield f"postgresql://connecthub@/postgres?host={folder}"
    account.run([*control, "-m", "immediate", "stop"], cwd=folder)


def test_a_backup_goes_to_an_older_postgresql_and_back(stage: Stage, old_server: str) -> None:
    fill(stage, 1)
    there = {"CONNECTHUB_DATABASE__URL": old_server}
    new, old = stage.folder / "new.zip", stage.folder / "old.zip"
    assert command(stage, "backup", str(new)).returncode == 0
    down = command(stage, "restore", str(new), **there)
    assert down.returncode == 0, down.stderr
    back = command(stage, "backup", str(old), **there)
    assert back.returncode == 0, back.stderr
    with zipfile.ZipFile(old) as archive:
        assert json.loads(archive.read("manifest.json"))["pg_dump"] == 15, "the nearest programs are taken"
    before = stage.sql("SELECT id, run_log FROM job_logs ORDER BY id")
    restore(stage, old, "--replace", "--yes")
    assert stage.sql("SELECT id, run_log FROM job_logs ORDER BY id") == before


def test_a_data_folder_is_copied_while_the_hub_is_stopped(tmp_path: Path) -> None:
    environ = {"CONNECTHUB_PLUGINS__PACKAGES": '["tests"]', "CONNECTHUB_PLUGINS__PATH": str(ROOT)}
    password = {"CONNECTHUB_SECURITY__ADMIN_PASSWORD": "three words long"}
    witness = tmp_path / "witness.jsonl"
    with Program(tmp_path / "here", environ | password) as program:
        person = Person(program.url)
        person.sign_in("three words long")
        made = person.fill(
            "/admin/jobs/create",
            {
                "id": "copied", "name": "Copied", "cron_expr": NEVER, "timezone": "UTC",
                "handler_path": "tests.faults.jobs:AsyncJob", "secret_cfg": '{"token": "canary-77c1"}',
                "public_cfg": json.dumps({"witness": str(witness)}),
            },
        )  # fmt: skip
        assert made.status_code == 303, made.text
        assert program.stop() == 0
    shutil.copytree(tmp_path / "here" / "data", tmp_path / "there" / "data", copy_function=shutil.copy2)
    owner = (tmp_path / "here" / "data" / "postgres").stat()
    subprocess.run(
        ["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", tmp_path / "there/data/postgres"], check=True
    )
    with Program(tmp_path / "there", environ) as program:
        assert [row["id"] for row in program.fetch("SELECT id FROM jobs")] == ["copied"]
        person = Person(program.url)
        person.sign_in("three words long")
        assert person.post("/admin/jobs/copied/run").status_code in (302, 303)
        while not witness.exists() or "end" not in witness.read_text():
            assert program.process.poll() is None
        assert program.stop() == 0
