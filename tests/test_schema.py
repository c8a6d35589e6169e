"""What the schema itself promises, by plain SQL: whoever writes to it gets these rules."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from connecthub.errors import DatabaseError
from connecthub.storage.pending import migrate
from connecthub.storage.schema import MIGRATIONS, schema_revisions

INSERT = "INSERT INTO jobs (id, cron_expr, handler_path) VALUES ('a', '* * * * *', 'extensions.x:Y')"


def on(dsn: str, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await work(connection)
        finally:
            await connection.close()

    asyncio.run(run())


def test_three_columns_make_a_job_and_its_first_revision(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute(INSERT)
        job = await db.fetchrow("SELECT * FROM jobs")
        revision = await db.fetchrow("SELECT * FROM job_revisions")
        assert job is not None and revision is not None
        assert (job["name"], job["timezone"], job["misfire"], job["overlap"]) == (
            "a",
            "Asia/Shanghai",
            "latest",
            "skip",
        )
        assert job["revision_id"] == revision["id"] and revision["number"] == 1
        assert revision["saved_by"] is None

    on(dsn, work)


def test_a_save_writes_a_revision_with_its_author_and_the_tick_writes_none(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute(INSERT)
        async with db.transaction():
            await db.execute("SELECT set_config('connecthub.user', 'li.na', true)")
            await db.execute("UPDATE jobs SET timeout_s = 5")
        await db.execute("UPDATE jobs SET timeout_s = 5")
        await db.execute("UPDATE jobs SET next_run_at = clock_timestamp()")
        rows = await db.fetch("SELECT number, saved_by FROM job_revisions ORDER BY number")
        assert [tuple(row) for row in rows] == [(1, None), (2, "li.na")]

    on(dsn, work)


def test_a_changed_schedule_starts_from_now_and_says_which_fire_it_took(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute(INSERT)
        await db.execute("UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp())")
        await db.execute("UPDATE jobs SET cron_expr = '5 * * * *'")
        rows = await db.fetch("SELECT status, reason, scheduled_for IS NOT NULL FROM job_logs")
        assert [tuple(row) for row in rows] == [("SKIPPED", "changed", True)]
        assert await db.fetchval("SELECT next_run_at IS NULL AND schedule_from > created_at FROM jobs")

    on(dsn, work)


def test_disabling_ends_what_waits_and_a_going_run_forbids_deletion(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute(INSERT)
        queue = (
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
            " SELECT 'a', revision_id, $1, 'QUEUED', $1 FROM jobs"
        )
        await db.execute(queue, "schedule")
        await db.execute(queue, "manual")
        await db.execute("UPDATE jobs SET enabled = false")
        rows = await db.fetch("SELECT trigger, status, reason FROM job_logs ORDER BY id")
        assert [tuple(row) for row in rows] == [
            ("schedule", "CANCELLED", "disabled"),
            ("manual", "QUEUED", None),
        ]
        with pytest.raises(asyncpg.ObjectInUseError, match="still going"):
            await db.execute("DELETE FROM jobs")
        await db.execute(
            "UPDATE job_logs SET status = 'SUCCESS', finished_at = now() WHERE status = 'QUEUED'"
        )
        await db.execute("DELETE FROM jobs")
        left = await db.fetchval(
            "SELECT (SELECT count(*) FROM job_logs) + (SELECT count(*) FROM job_revisions)"
        )
        assert left == 0

    on(dsn, work)


def test_the_snapshot_is_the_revision_with_the_overrides_of_the_run(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute(INSERT)
        await db.execute("""UPDATE jobs SET public_cfg = '{"a": 1, "b": 2}'""")
        await db.execute(
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, params)"
            """ SELECT 'a', revision_id, 'manual', 'QUEUED', 'k', '{"b": 3}' FROM jobs"""
        )
        await db.execute("""UPDATE jobs SET public_cfg = '{"a": 9}'""")
        public = await db.fetchval("SELECT snapshot_params->>'public_cfg' FROM job_log_snapshots")
        assert public == '{"a": 1, "b": 3}'

    on(dsn, work)


def test_audit_rows_are_append_only(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute("INSERT INTO audit (username, action, object) VALUES ('a', 'login', '')")
        for change in ("UPDATE audit SET username = 'b'", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(asyncpg.RaiseError, match="append-only"):
                await db.execute(change)

    on(dsn, work)


def test_a_revision_never_changes(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute(INSERT)
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await db.execute("UPDATE job_revisions SET cron_expr = '0 0 * * *'")

    on(dsn, work)


def test_hubs_that_start_at_once_migrate_once(server: str, dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await asyncio.gather(*[migrate(dsn) for _ in range(3)])
        assert await db.fetchval("SELECT count(*) FROM alembic_version") == 1

    on(dsn, work)


def test_a_schema_from_the_future_is_left_alone(dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(DatabaseError, match="its schema is newer than") as refused:
            await migrate(dsn)
        assert "\n" not in str(refused.value)
        assert await db.fetchval("SELECT version_num FROM alembic_version") == "9999"

    on(dsn, work)


def test_a_role_without_rights_is_told_what_it_needs(server: str, dsn: str) -> None:
    async def work(db: asyncpg.Connection) -> None:
        for rights in ("", "GRANT USAGE ON SCHEMA public TO PUBLIC"):
            await db.execute(f"DROP SCHEMA public CASCADE; CREATE SCHEMA public; {rights}")
            with pytest.raises(DatabaseError, match="must own the database"):
                await migrate(dsn)

    name = urlsplit(dsn).path
    on(urlunsplit(urlsplit(server)._replace(path=name)), work)  # the superuser's, who then owns the schema


def test_the_scripts_are_the_line_of_migrations_that_alembic_sees() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    line = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert schema_revisions() == tuple(reversed(line))


def test_a_hub_whose_schema_is_there_never_loads_alembic(dsn: str) -> None:
    code = (
        "import asyncio, sys\n"
        "from connecthub import daemon\n"
        f"asyncio.run(daemon.migrate({dsn!r}))\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
