"""What claims and ends read: the queue is empty when statistics are gathered, and long when it counts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from connecthub.engine.tick import Ticker
from connecthub.metrics import Metrics
from connecthub.storage import overview, queue, runs
from connecthub.storage.database import ENGINE_SETTINGS, PAGE_SETTINGS, Database
from connecthub.storage.runs import Ending
from tests.engine import sample_jobs
from tests.engine.conftest import Rig
from tests.program import Person, Program

QUEUED = 2000
PLACES = 32


async def entries_read(db: Database) -> int:
    """How many index entries of job_logs all sessions have read so far."""
    await db.execute("SELECT pg_stat_force_next_flush()")
    return int(
        await db.fetchval("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'job_logs'")
    )


async def fill(dsn: str) -> None:
    """A table whose statistics say that nothing is ever queued, and a long queue."""
    insert = (
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, finished_at)"
        " SELECT id, revision_id, 'api', $1, 'key-' || gen_random_uuid(),"
        " CASE $1 WHEN 'SUCCESS' THEN clock_timestamp() END FROM jobs, generate_series(1, $2)"
    )
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "INSERT INTO jobs (id, cron_expr, handler_path) VALUES ('a', '0 0 29 2 *', 'tests:Any')"
    )
    await connection.execute(insert, "SUCCESS", 10_000)
    await connection.execute("VACUUM ANALYZE job_logs")
    await connection.execute(insert, "QUEUED", QUEUED)
    await connection.close()


@pytest.mark.parametrize("what", ["claim", "end", "beat", "reap"])
def test_a_long_queue_is_not_read_whole_although_it_is_planned_while_empty(dsn: str, what: str) -> None:
    async def read() -> int:
        await fill(dsn)
        db, worker = await Database.open(dsn, size=1, settings=ENGINE_SETTINGS), uuid4()
        before = await entries_read(db)
        claims = await runs.claim(db, worker, 60, PLACES)
        if what != "claim":
            before = await entries_read(db)
        if what == "end":
            await runs.store_endings(db, worker, [Ending(claim.id, "SUCCESS") for claim in claims])
        elif what == "beat":
            ids = [claim.id for claim in claims]
            await runs.beat(db, worker, 60, ids, ids)
        elif what == "reap":
            async with db.transaction() as connection:
                assert await runs.reap(connection) == []
        after = await entries_read(db)
        await db.close()
        assert len(claims) == PLACES
        return after - before

    assert asyncio.run(read()) < 10 * PLACES


def test_the_first_burst_is_not_claimed_by_plans_that_were_made_on_an_empty_table(dsn: str) -> None:
    async def read() -> int:
        db, worker = await Database.open(dsn, size=1, settings=ENGINE_SETTINGS), uuid4()
        await db.execute(
            "INSERT INTO jobs (id, cron_expr, handler_path)"
            " SELECT 'job-' || n, '* * * * *', 'tests:Any' FROM generate_series(1, $1) AS n",
            QUEUED,
        )
        await db.execute("VACUUM ANALYZE job_logs")  # as somebody's nightly job does
        await db.execute("UPDATE jobs SET schedule_from = clock_timestamp() - interval '2 minutes'")
        for _ in range(10):  # after five times PostgreSQL keeps a plan
            await runs.claim(db, worker, 60, PLACES)
            await runs.store_endings(db, worker, [Ending(-1, "SUCCESS")])
        await Ticker(db, Metrics(), lambda: None).tick_once()
        before = await entries_read(db)
        claims = await runs.claim(db, worker, 60, PLACES)
        await runs.store_endings(db, worker, [Ending(claim.id, "SUCCESS") for claim in claims])
        after = await entries_read(db)
        await db.close()
        assert len(claims) == PLACES
        return after - before

    assert asyncio.run(read()) < 20 * PLACES


def test_claims_do_not_walk_past_what_has_left_the_queue(hub: Rig) -> None:
    """An open transaction keeps it in the index; that people's runs still come first is tried on the way."""
    hub.job("many", "CountedJob", overlap="allow")
    hub.job("one", "CountedJob")
    other = hub.do(asyncpg.connect(hub.dsn))
    hub.do(other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ"))
    hub.do(other.execute("SELECT FROM job_logs"))
    before = hub.do(entries_read(hub.db))
    hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
        " SELECT id, revision_id, 'schedule', 'QUEUED', 'key-' || n FROM jobs, generate_series(1, $1) AS n"
        " WHERE id = 'many'",
        QUEUED,
    )
    hub.sql("SELECT pg_notify('connecthub', 'run')")
    hub.until(lambda: len(sample_jobs.calls) > 100)
    dispatcher = hub.hubs[0][0]._dispatcher
    whole_at, dispatcher._whole_at = dispatcher._whole_at, math.inf
    asked_for = hub.run("one")
    hub.wait(asked_for, "SUCCESS")
    assert hub.sql("SELECT FROM job_logs WHERE status = 'QUEUED' AND job_id = 'many'")
    dispatcher._whole_at = whole_at
    hub.until(lambda: len(sample_jobs.calls) == QUEUED + 1)
    hub.until(lambda: not hub.sql("SELECT FROM job_logs WHERE status IN ('QUEUED', 'RUNNING') LIMIT 1"))
    read = hub.do(entries_read(hub.db)) - before
    hub.do(other.close())
    walked = QUEUED * QUEUED / 4  # by claims of two, each from the beginning: half of the queue each
    assert read < walked / 10


@pytest.mark.parametrize("look", [queue.longest_wait, overview.read_state], ids=["readiness", "overview"])
def test_a_long_queue_is_not_held_against_itself(
    dsn: str, look: Callable[[Database], Awaitable[object]]
) -> None:
    async def read() -> int:
        await fill(dsn)
        db = await Database.open(dsn, size=1)
        # Kept waiting, or what the overview asks of each would not be asked.
        await db.execute("UPDATE job_logs SET queued_at = queued_at - interval '5 minutes'")
        found, read = await read_by(look, db, entries_read)
        assert found
        return read

    assert asyncio.run(read()) < 10 * QUEUED


@pytest.mark.parametrize("look", [overview.read_state, overview.running_now], ids=["state", "running"])
def test_no_page_reads_all_runs_although_statistics_say_that_nearly_all_go(
    dsn: str, look: Callable[[Database], Awaitable[object]]
) -> None:
    async def read() -> int:
        await fill(dsn)
        db = await Database.open(dsn, size=1, settings=PAGE_SETTINGS)
        await db.execute("UPDATE job_logs SET status = 'QUEUED', finished_at = NULL")
        await db.execute(
            "UPDATE job_logs SET status = 'RUNNING', worker_id = gen_random_uuid(),"
            " lease_expires_at = clock_timestamp() WHERE id % 2 = 0"
        )
        await db.execute("ANALYZE job_logs")
        await db.execute(
            "UPDATE job_logs SET status = 'SUCCESS', lease_expires_at = NULL, finished_at = clock_timestamp()"
        )
        _, read = await read_by(look, db, rows_read_in_turn)
        return read

    assert asyncio.run(read()) == 0


def test_a_tick_reads_the_jobs_that_are_due_and_no_others(dsn: str) -> None:
    async def read() -> int:
        db = await Database.open(dsn, size=1, settings=ENGINE_SETTINGS)
        await db.execute(
            "INSERT INTO jobs (id, cron_expr, handler_path)"
            " SELECT 'job-' || n, '* * * * *', 'tests:Any' FROM generate_series(1, $1) AS n",
            QUEUED,
        )
        await db.execute(
            "UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp())"
            " + CASE WHEN id LIKE 'job-1__' THEN interval '0' ELSE interval '30 days' END"
        )
        await db.execute("VACUUM ANALYZE jobs")
        queued, read = await read_by(tick, db, jobs_read)
        assert queued == 100
        return read

    assert asyncio.run(read()) < 10 * 100


def test_a_hub_and_its_pages_work_with_these_settings(rig: Rig, tmp_path: Path) -> None:
    """While a table has a page or two, reading it whole is the plan of whoever works without them."""
    rig.job("a", "EchoJob")
    environ = {"CONNECTHUB_DATABASE__URL": rig.dsn, "CONNECTHUB_PLUGINS__PACKAGES": '["tests"]'}
    with Program(tmp_path, environ) as program, Person(program.url) as person:
        person.sign_in(program.password)
        run = person.post("/admin/jobs/a/run").headers["location"]
        rig.until(lambda: "Success" in person.get(run).text)
        for page in ("/admin/", "/admin/joblogs/list", "/admin/jobs/details/a"):
            assert person.get(page).status_code == 200
    # A session tells what it has read at the latest when it ends.
    read = rig.sql("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'job_logs'")
    assert read[0]["seq_scan"] == 0


async def read_by(
    look: Callable[[Database], Awaitable[object]], db: Database, count: Callable[[Database], Awaitable[int]]
) -> tuple[object, int]:
    """What a look finds, and how much it reads for that; closes the database."""
    before = await count(db)
    found = await look(db)
    after = await count(db)
    await db.close()
    return found, after - before


async def rows_read_in_turn(db: Database) -> int:
    """How many rows of job_logs all sessions have read without an index."""
    await db.execute("SELECT pg_stat_force_next_flush()")
    return int(
        await db.fetchval("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'job_logs'") or 0
    )


async def tick(db: Database) -> int:
    """A tick; how many runs wait after it."""
    await Ticker(db, Metrics(), lambda: None).tick_once()
    return int(await db.fetchval("SELECT count(*) FROM job_logs WHERE status = 'QUEUED'"))


async def jobs_read(db: Database) -> int:
    """How many rows of jobs and entries of its indexes all sessions have read."""
    await db.execute("SELECT pg_stat_force_next_flush()")
    return int(
        await db.fetchval(
            "SELECT sum(idx_tup_read) + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs')"
            " FROM pg_stat_user_indexes WHERE relname = 'jobs'"
        )
    )
