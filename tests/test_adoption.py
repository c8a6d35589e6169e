"""The database of the system before ConnectHub, adopted in place; its SQL files are in tests/ops/adoption."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.fernet import Fernet

from connecthub.errors import DatabaseError
from connecthub.security.vault import Vault
from connecthub.storage.pending import migrate, pending_sql
from connecthub.storage.schema import schema_head
from tests.installation import Site

FILES = Path(__file__).parent / "ops" / "adoption"
AGES = {
    "1_first": ["jobs", "1_first", "runs"],
    "2_running": ["jobs", "2_running", "runs", "running"],
    "3_run_log": ["jobs", "3_run_log", "runs", "running", "log"],
}
KEY = b"a2V5IG9mIHRoZSB0ZXN0cyBvZiBhZG9wdGlvbiAzMiE="  # of the secrets in the SQL files
JOBS, ODD = 13, 9  # ODD of the Jobs have ids that the form would refuse, or that are words of addresses
OA = "extensions.sync_oa_to_didi.job:SyncOAToDidiTokenJob"


def sql(dsn: str, *statements: str) -> list[asyncpg.Record]:
    """The rows of the last statement."""

    async def work() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return list(await connection.fetch(statements[-1]))
        finally:
            await connection.close()

    return asyncio.run(work())


def load(dsn: str, age: str) -> None:
    """Make the database what the old system left."""
    sql(dsn, *((FILES / f"{part}.sql").read_text("utf-8") for part in AGES[age]), "SELECT 1")


def check_adopted(dsn: str, *, has_running: bool, has_log: bool) -> None:
    """Assert that everything of an SQL file is there as the new system has it."""
    assert sql(dsn, "SELECT count(*) FROM jobs")[0][0] == JOBS
    runs = [dict(row) for row in sql(dsn, "SELECT * FROM job_logs ORDER BY id")]
    assert [run["id"] for run in runs] == list(range(1, 18 + has_running))
    check_jobs(dsn)
    first, failed, again, retried, no_snapshot, gone, nothing, odd = runs[:8]
    assert (first["status"], first["trigger"], first["reason"]) == ("SUCCESS", "schedule", None)
    assert first["started_at"].isoformat() == "2024-01-02T01:00:00+00:00"  # 09:00 in Shanghai
    assert first["finished_at"].isoformat() == "2024-01-02T01:00:03.500000+00:00"
    assert first["run_log"] == ("2024-01-02 09:00:00 INFO hello" if has_log else None)
    assert json.loads(first["meta"]) == {"trigger": "schedule", "celery_task_id": "task-1"}
    assert (failed["trigger"], failed["reason"], failed["attempt"]) == ("manual", "exception", 1)
    assert "boom" in failed["traceback"] and json.loads(failed["meta"])["user"] == "li.na"
    assert again["attempt"] == 2 and again["idempotency_key"] == failed["idempotency_key"]
    assert (retried["attempt"], json.loads(retried["meta"])["retry_of"]) == (1, 3)
    assert no_snapshot["finished_at"] == no_snapshot["started_at"] == no_snapshot["queued_at"]
    assert gone["job_id"] == nothing["job_id"] == "gone"
    assert "nul \\u0000 here" in snapshot(dsn, odd)["public_cfg"]["adopted"]
    assert snapshot(dsn, first)["public_cfg"] == {"base_url": "https://old.example.com"}
    assert snapshot(dsn, no_snapshot) == snapshot(dsn, retried) | {"meta": {"trigger": "schedule"}}
    if has_running:
        assert (runs[-1]["status"], json.loads(runs[-1]["meta"])["adopted_status"]) == ("LOST", "RUNNING")
    assert sql(dsn, "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
                    " SELECT id, revision_id, 'manual', 'QUEUED', 'k' FROM jobs LIMIT 1 RETURNING id"
               )[0][0] == runs[-1]["id"] + 1  # fmt: skip


def check_jobs(dsn: str) -> None:
    jobs = {row["id"]: row for row in sql(dsn, "SELECT *, secret_cfg IS NULL AS bare FROM jobs")}
    oa, listed = jobs["oa-sync"], jobs["list"]
    assert {(job["misfire"], job["overlap"], job["timeout_s"], job["timezone"]) for job in jobs.values()} == {
        ("skip", "allow", 0, "Asia/Shanghai")
    }
    assert (oa["handler_path"], oa["enabled"], oa["cron_expr"]) == (OA, True, "*/5 * * * *")
    assert oa["last_run_at"].isoformat() == "2024-03-09T15:55:00+00:00"
    assert Vault([Fernet(KEY)]).decrypt(oa["secret_cfg"]) == {"token": "canary-old-2"}
    assert not jobs["off"]["enabled"] and jobs["off"]["bare"]
    assert json.loads(listed["public_cfg"]) == {"adopted": [1, 2]} and listed["cron_expr"] == "61 * * * *"
    revisions = sql(dsn, "SELECT * FROM job_revisions WHERE job_id = 'oa-sync' ORDER BY number")
    assert [json.loads(row["public_cfg"])["base_url"] for row in revisions] == [
        "https://old.example.com",
        "https://oa.example.com",
    ]
    assert revisions[-1]["id"] == oa["revision_id"] and {row["saved_by"] for row in revisions} == {"adoption"}
    sql(dsn, "UPDATE jobs SET priority = 1 WHERE id = 'oa-sync'", "SELECT 1")  # the triggers are on again
    assert sql(dsn, "SELECT count(*) FROM job_revisions WHERE job_id = 'oa-sync'")[0][0] == 3


def snapshot(dsn: str, run: dict[str, Any]) -> dict[str, Any]:
    row = sql(dsn, f"SELECT snapshot_params FROM job_log_snapshots WHERE id = {run['id']}")[0]
    found: dict[str, Any] = json.loads(row["snapshot_params"])
    return found if run["message"] == "first" else {**found, "meta": {"trigger": "schedule"}}


def test_a_database_of_the_last_age_is_adopted_with_all_rows(bare: str) -> None:
    load(bare, "3_run_log")
    asyncio.run(migrate(bare))
    check_adopted(bare, has_running=True, has_log=True)
    kept = sql(bare, "SELECT count(*) FROM before_connecthub.job_logs")[0][0]
    assert kept == 18 and sql(bare, "SELECT count(*) FROM before_connecthub.celery_taskmeta")
    asyncio.run(migrate(bare))  # the next start finds a database of ours
    audit = sql(bare, "SELECT detail FROM audit WHERE action = 'hub.adopt'")
    assert [json.loads(row[0])["runs"] for row in audit] == [18]


def test_times_that_no_calendar_reaches_are_left_out_and_kept_in_meta(bare: str, tmp_path: Path) -> None:
    load(bare, "3_run_log")
    sql(
        bare,
        "UPDATE jobs SET last_run_at = '0001-01-01' WHERE id = 'oa-sync'",
        "UPDATE job_logs SET started_at = 'infinity' WHERE id = 1",
        "UPDATE job_logs SET started_at = '0001-01-01', finished_at = '20240-01-01' WHERE id = 2",
        "SELECT 1",
    )
    site = Site(tmp_path, bare)
    for words in (
        ["migrate"],
        ["job", "list"],
        ["run", "list"],
        ["job", "show", "oa-sync"],
        ["run", "show", "2"],
    ):
        done = site.command(*words)
        assert done.returncode == 0, done.stderr
    first, second = sql(bare, "SELECT * FROM job_logs WHERE id <= 2 ORDER BY id")
    assert first["started_at"] is None and first["finished_at"].year == 2024
    assert json.loads(first["meta"])["adopted_times"]["started_at"] == "infinity"
    assert second["started_at"] is None and second["status"] == "FAILURE"
    assert json.loads(second["meta"])["adopted_times"]["finished_at"] == "20240-01-01T00:00:00"
    assert sql(bare, "SELECT last_run_at FROM jobs WHERE id = 'oa-sync'")[0][0] is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER TABLE jobs ALTER enabled TYPE int USING 1", "integer and boolean"),
        (
            "INSERT INTO jobs VALUES ('(none)', true, '', '', '{}', ''), ('', true, '', '', '{}', '')",
            "(none)",
        ),
    ],
    ids=["another type", "ids that become one"],
)
def test_what_is_unlike_that_system_is_refused_whole(
    bare: str, tmp_path: Path, change: str, told: str
) -> None:
    load(bare, "2_running")
    sql(bare, change, "SELECT 1")
    before = sql(bare, "SELECT * FROM jobs ORDER BY id")
    done = Site(tmp_path, bare).command("migrate")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "cannot be adopted" in done.stderr and told in done.stderr and "nothing was changed" in done.stderr
    assert sql(bare, "SELECT * FROM jobs ORDER BY id") == before
    assert not sql(bare, "SELECT FROM pg_namespace WHERE nspname = 'before_connecthub'")


def test_a_command_that_only_looks_adopts_nothing(bare: str, tmp_path: Path) -> None:
    load(bare, "1_first")
    site = Site(tmp_path, bare)
    assert "the first start adopts it" in site.check()["schema"][0]
    listed = site.command("job", "list")
    assert listed.returncode == 2 and "adopt it first (connecthub migrate" in listed.stderr
    assert "before_connecthub" in site.command("migrate", "--sql").stdout
    assert sql(bare, "SELECT count(*) FROM job_logs")[0][0] == 17
    sql(bare, "DROP TABLE job_logs", "SELECT 1")
    assert "not ConnectHub's (jobs)" in site.check(status=1)["schema"][0]


def test_a_command_that_only_looks_migrates_nothing(dsn: str, tmp_path: Path) -> None:
    sql(dsn, "UPDATE alembic_version SET version_num = '0001'", "SELECT 1")
    listed = Site(tmp_path, dsn).command("job", "list")
    assert listed.returncode == 2 and "is 0001, older than this version's" in listed.stderr


def test_a_database_of_somebody_else_is_refused_in_one_line(bare: str) -> None:
    sql(bare, "CREATE TABLE invoices (id int)", "CREATE TABLE jobs (id int, title text)", "SELECT 1")
    for command in (migrate, pending_sql):
        with pytest.raises(DatabaseError, match=r"not ConnectHub's \(invoices, jobs\); give it") as refused:
            run(command, bare)
        assert "\n" not in str(refused.value)
    assert not sql(bare, "SELECT FROM pg_class WHERE relname = 'alembic_version'")


def test_the_printed_sql_does_what_migrate_does(bare: str, dsn: str) -> None:
    assert run(pending_sql, dsn) == ""
    script = run(pending_sql, bare)
    assert script.startswith("BEGIN;") and f"VALUES ('{schema_head()}')" in script
    assert not sql(bare, "SELECT FROM pg_class WHERE relname = 'jobs'")
    sql(bare, script, "SELECT 1")
    assert run(pending_sql, bare) == ""
    shape = (
        "SELECT table_name::text, column_name::text, data_type::text, column_default::text"
        " FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    assert sql(bare, shape) == sql(dsn, shape)
    sql(bare, "UPDATE alembic_version SET version_num = '9999'", "SELECT 1")
    with pytest.raises(DatabaseError, match="its schema is newer"):
        run(pending_sql, bare)


def run(command: Callable[[str], Coroutine[Any, Any, Any]], dsn: str) -> Any:
    return asyncio.run(command(dsn))
