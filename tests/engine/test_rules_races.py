"""Rules of a run's life that show only where two act at once, or one stops in the middle."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from connecthub.engine.tick import Ticker
from connecthub.metrics import Metrics
from connecthub.storage import requests, runs
from connecthub.storage.audit import Actor
from connecthub.storage.live import Live, store_live
from connecthub.storage.runs import Ending
from tests.engine.conftest import Rig

LI = Actor("li.na", None)
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def ticker(rig: Rig) -> Ticker:
    async def make() -> Ticker:
        return Ticker(rig.db, Metrics(), lambda: None)

    made: Ticker = rig.do(make())
    return made


def due(rig: Rig, *job_ids: str) -> None:
    """Jobs that are due at this minute, and at none that the test may live to see."""
    minute = rig.sql("SELECT date_trunc('minute', clock_timestamp()) AS minute")[0]["minute"]
    for job_id in job_ids:
        rig.job(job_id, "EchoJob", cron_expr=f"{minute.minute} {minute.hour} * * *", timezone="UTC")
    rig.sql("UPDATE jobs SET next_run_at = $1", minute)


def queued(rig: Rig) -> list[str]:
    return [row["job_id"] for row in rig.sql("SELECT job_id FROM job_logs ORDER BY job_id")]


def test_rule_1_a_tick_that_fails_in_the_middle_leaves_nothing(rig: Rig) -> None:
    due(rig, "a")
    rig.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'refused'; END $$"
    )
    rig.sql("CREATE TRIGGER refuse BEFORE UPDATE OF next_run_at ON jobs EXECUTE FUNCTION refuse()")
    with pytest.raises(asyncpg.RaiseError):
        rig.do(ticker(rig).tick_once())
    assert queued(rig) == [], "what was inserted before the failure is gone with it"
    rig.sql("DROP TRIGGER refuse ON jobs")
    rig.do(ticker(rig).tick_once())
    assert queued(rig) == ["a"]


def test_rule_1_a_locked_job_holds_up_no_other_and_is_taken_when_it_is_free(rig: Rig) -> None:
    due(rig, "a", "b")

    async def beside_a_lock() -> list[str]:
        async with rig.db.transaction() as connection:
            await connection.execute("SELECT FROM jobs WHERE id = 'a' FOR UPDATE")
            tick = asyncio.create_task(Ticker(rig.db, Metrics(), lambda: None).tick_once())
            async with asyncio.timeout(5):
                while not (rows := await rig.db.fetch("SELECT job_id FROM job_logs")):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            meanwhile = [row["job_id"] for row in rows]
        await tick
        return meanwhile

    assert rig.do(beside_a_lock()) == ["b"]
    assert queued(rig) == ["a", "b"]


def test_rule_17_a_cancel_misses_no_release_that_comes_in_between(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    run_id = rig.run("a")
    worker_id = uuid4()
    assert [claim.id for claim in rig.do(runs.claim(rig.db, worker_id, 60, 1))] == [run_id]

    async def both() -> str:
        async with rig.db.transaction() as connection:
            await runs.release(connection, worker_id, [])  # RUNNING for others, QUEUED once this commits
            cancel = asyncio.create_task(requests.cancel_run(rig.db, run_id, actor=LI))
            async with asyncio.timeout(5):
                while not await rig.db.fetchval(_WAITING):  # noqa: ASYNC110  # locks have no signal
                    await asyncio.sleep(0.01)
        return await cancel

    assert rig.do(both()) == "CANCELLED"
    row = rig.row(run_id)
    assert (row["status"], row["reason"]) == ("CANCELLED", "cancelled")


def test_rule_14_an_owner_that_comes_back_just_as_it_is_reaped(rig: Rig) -> None:
    rig.job("a", "EchoJob", rerun_lost=True, max_attempts=2, retry_delays=[0])
    run_id, worker_id = rig.run("a"), uuid4()
    rig.do(runs.claim(rig.db, worker_id, 0, 1))

    async def both() -> None:
        async with rig.db.transaction() as connection:
            assert await runs.reap(connection) == [run_id]
            end = asyncio.create_task(runs.store_endings(rig.db, worker_id, [Ending(run_id, "SUCCESS")]))
            async with asyncio.timeout(5):
                while not await rig.db.fetchval(_WAITING):  # noqa: ASYNC110  # locks have no signal
                    await asyncio.sleep(0.01)
        await end

    rig.do(both())
    rows = rig.sql("SELECT status, reason FROM job_logs ORDER BY id")
    assert [tuple(row) for row in rows] == [("SUCCESS", None), ("CANCELLED", "superseded")]


def test_rule_14_holds_where_the_answer_to_such_an_end_was_lost(rig: Rig) -> None:
    """It is stored again, and what would have come after the answer is still to be done."""
    rig.job("a", "EchoJob", rerun_lost=True, max_attempts=2, retry_delays=[0])
    run_id, worker_id = rig.run("a"), uuid4()
    rig.do(runs.claim(rig.db, worker_id, 0, 1))
    assert rig.reap() == [run_id]
    rig.sql("UPDATE job_logs SET status = 'SUCCESS' WHERE id = $1", run_id)  # committed, and then cut
    rig.do(runs.store_endings(rig.db, worker_id, [Ending(run_id, "SUCCESS")]))
    rows = rig.sql("SELECT status, reason FROM job_logs ORDER BY id")
    assert [tuple(row) for row in rows] == [("SUCCESS", None), ("CANCELLED", "superseded")]


_NEWER = (
    "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, scheduled_for)"
    " SELECT id, revision_id, 'schedule', 'QUEUED', 'newer', clock_timestamp() FROM jobs"
)


@pytest.mark.parametrize("by", ["end", "reaper"])
@pytest.mark.parametrize("statement", ["UPDATE jobs SET enabled = false", _NEWER])
def test_rule_13_waits_for_a_tick_or_a_save_that_is_not_committed_yet(
    rig: Rig, by: str, statement: str
) -> None:
    rig.job("a", "EchoJob", overlap="queue", rerun_lost=True, max_attempts=2, retry_delays=[60])
    run_id, worker_id = rig.run("a"), uuid4()
    rig.sql("UPDATE job_logs SET trigger = 'schedule', scheduled_for = now() - interval '1 min'")
    rig.do(runs.claim(rig.db, worker_id, 0 if by == "reaper" else 60, 1))

    async def end() -> None:
        if by == "end":
            await runs.store_endings(rig.db, worker_id, [Ending(run_id, "FAILURE", retry_delay_s=60)])
        else:
            async with rig.db.transaction() as connection:
                assert await runs.reap(connection) == [run_id]

    async def both() -> None:
        async with rig.db.transaction() as connection:
            await connection.execute("SELECT FROM jobs FOR NO KEY UPDATE")
            await connection.execute(statement)
            ending = asyncio.create_task(end())
            async with asyncio.timeout(5):
                while not await rig.db.fetchval(_WAITING):  # noqa: ASYNC110  # locks have no signal
                    await asyncio.sleep(0.01)
        await ending

    rig.do(both())
    assert rig.row(run_id)["status"] == ("FAILURE" if by == "end" else "LOST")
    assert rig.sql("SELECT FROM job_logs WHERE attempt = 2") == []


def test_ends_live_logs_and_beats_do_not_wait_for_each_other(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    count, worker_id = 400, uuid4()

    async def together() -> None:
        insert = (
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
            " SELECT id, revision_id, 'api', 'QUEUED', gen_random_uuid() FROM jobs, generate_series(1, $1)"
        )
        await rig.db.execute(insert, count)
        ids = [claim.id for claim in await runs.claim(rig.db, worker_id, 60, count)]
        await asyncio.gather(
            store_live(
                rig.db, worker_id, [Live(id, "a line", None, None, "{}") for id in reversed(ids)], ids
            ),
            runs.store_endings(rig.db, worker_id, [Ending(id, "SUCCESS") for id in ids]),
            runs.beat(rig.db, worker_id, 60, ids, ids),
        )

    for _ in range(5):
        rig.do(together())
