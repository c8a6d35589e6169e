"""SIGTERM, whatever plugins and the database do."""

from __future__ import annotations

import signal
import time

import asyncpg
import pytest

from tests.faults.stage import Stage

GRACE_S = 2  # as the stage sets it
MOST_S = GRACE_S + 10


def stop(stage: Stage, number: int = 0) -> float:
    """Stop a hub as systemd does; how many seconds that took."""
    begin = time.monotonic()
    assert stage.hubs[number].stop() == 0
    return time.monotonic() - begin


@pytest.mark.ci
def test_queued_stays_queued_and_what_has_not_begun_goes_back(stage: Stage) -> None:
    stage.hub(CONNECTHUB_POOL__SIZE="2")
    for number in range(6):
        stage.job(f"job-{number}", "ThreadJob", {"seconds": 1})
        stage.run(f"job-{number}")
    stage.until(lambda: len(stage.told("begin")) == 2)
    stop(stage)
    rows = stage.sql("SELECT status, worker_id FROM job_logs ORDER BY id")
    assert [row["status"] for row in rows] == ["SUCCESS"] * 2 + ["QUEUED"] * 4
    assert all(row["worker_id"] is None for row in rows[2:])
    stage.hub()
    stage.settle()
    assert stage.judge().is_clean


@pytest.mark.parametrize(
    ("handler", "params"),
    [
        ("AsyncJob", {"seconds": 60}),
        ("ThreadJob", {"seconds": 60}),
        ("ThreadJob", {"seconds": 60, "stubborn": True}),
        ("SwallowJob", {"seconds": 60}),
        ("BlockingJob", {"seconds": 60}),
    ],
    ids=["async", "thread", "stubborn thread", "swallows", "blocks"],
)
def test_it_ends_within_the_grace_and_ten_seconds(
    stage: Stage, handler: str, params: dict[str, object]
) -> None:
    stage.hub()
    stage.job("a", handler, params)
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    beat = stage.row(run_id)["lease_expires_at"]
    took = stop(stage)
    row = stage.row(run_id)
    assert GRACE_S <= took <= MOST_S, took
    assert (row["status"], row["reason"]) == ("CANCELLED", "shutdown")
    assert row["lease_expires_at"] is None, "its code ended with the process"
    assert (row["finished_at"] - beat).total_seconds() < 60
    assert stage.judge().is_clean


def test_it_ends_although_its_own_loop_stands_still(stage: Stage) -> None:
    hub = stage.hub()
    stage.job("a", "HubBlockingJob", {"seconds": 60})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("end"))
    begin = time.monotonic()
    hub.kill(signal.SIGTERM)
    hub.process.wait(MOST_S)
    assert GRACE_S <= time.monotonic() - begin <= MOST_S
    stage.killed.add(hub.process.pid)
    stage.hub()
    stage.wait(run_id, "LOST")
    assert stage.judge().is_clean


def test_a_run_that_ends_within_the_grace_is_a_success(stage: Stage) -> None:
    stage.hub()
    stage.job("a", "ThreadJob", {"seconds": 1})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    assert stop(stage) < GRACE_S + 2
    assert stage.row(run_id)["status"] == "SUCCESS"


def test_the_grace_may_be_longer_than_the_lease(stage: Stage) -> None:
    hub = stage.hub(CONNECTHUB_POOL__SHUTDOWN_GRACE_S="60")
    until = stage.folder / "until"
    stage.job("a", "WaitForFileJob", {"until": str(until), "stubborn": True})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    other = stage.hub()
    hub.kill(signal.SIGTERM)
    stage.until(lambda: "stopping" in hub.log)
    lease_ends = stage.row(run_id)["lease_expires_at"]
    stage.until(lambda: stage.value("SELECT clock_timestamp() > $1", lease_ends))
    orphan = stage.sql(
        "INSERT INTO job_logs"
        " (job_id, revision_id, trigger, status, idempotency_key, worker_id, lease_expires_at)"
        " SELECT id, revision_id, 'manual', 'RUNNING', 'k', gen_random_uuid(), $1 FROM jobs RETURNING id",
        lease_ends,
    )[0]["id"]
    stage.wait(orphan, "LOST")  # the other hub has looked whose lease is over
    assert stage.row(run_id)["status"] == "RUNNING", "heartbeats go on meanwhile"
    until.touch()
    assert hub.process.wait(MOST_S) == 0
    assert stage.row(run_id)["status"] == "SUCCESS"
    assert f"[{run_id}]" not in other.log and stage.judge().is_clean


def test_a_second_signal_ends_it_at_once_and_the_next_start_recovers(stage: Stage) -> None:
    hub = stage.hub(CONNECTHUB_POOL__SHUTDOWN_GRACE_S="60")
    stage.job("a", "ThreadJob", {"seconds": 60})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    hub.kill(signal.SIGTERM)
    stage.until(lambda: "stopping" in hub.log)
    begin = time.monotonic()
    hub.kill(signal.SIGTERM)
    hub.process.wait(10)
    assert time.monotonic() - begin < 2
    stage.killed.add(hub.process.pid)
    stage.hub()
    row = stage.wait(run_id, "LOST")
    assert row["message"] is None and stage.judge().is_clean


@pytest.mark.parametrize("state", ["gone", "silent"])
def test_it_ends_although_the_database_does_not_answer(stage: Stage, state: str) -> None:
    proxy = stage.proxy()
    hub = stage.hub(proxy)
    until = stage.folder / "until"
    stage.job("a", "WaitForFileJob", {"until": str(until)})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    if state == "gone":
        proxy.refuses = True
        proxy.cut()
    else:
        proxy.drop()
    until.touch()
    stage.until(lambda: stage.told("end"))
    assert stop(stage) <= MOST_S
    assert stage.row(run_id)["status"] == "RUNNING"
    stage.hub()
    assert stage.wait(run_id)["status"] == "SUCCESS", hub.log
    assert stage.judge().is_clean


def test_it_ends_although_neither_a_heartbeat_nor_its_rollback_is_answered(stage: Stage) -> None:
    """With a lease of a minute that would be waited for for half a minute."""

    async def hold(run_id: int) -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(stage.postgres.dsn)
        await connection.execute(f"BEGIN; SELECT FROM job_logs WHERE id = {run_id} FOR UPDATE")
        return connection

    proxy = stage.proxy()
    hub = stage.hub(proxy, CONNECTHUB_POOL__LEASE_S="60", CONNECTHUB_POOL__HEARTBEAT_S="0.5")
    until = stage.folder / "until"
    stage.job("a", "WaitForFileJob", {"until": str(until)})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    holder = stage.do(hold(run_id))
    stage.until(
        lambda: stage.sql(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%SET lease_expires_at = clock_timestamp()%'"
        )
    )
    proxy.drop()
    until.touch()
    stage.until(lambda: stage.told("end"))
    assert stop(stage) <= MOST_S
    stage.do(holder.close())
    stage.hub()
    assert stage.wait(run_id)["status"] == "SUCCESS", hub.log
    assert stage.judge().is_clean


def test_a_kill_between_withdrawal_and_release_leaves_nothing_behind(stage: Stage) -> None:
    stage.job("a", "AsyncJob", cron_expr="* * * * *", misfire="all")
    first = stage.make_due(3)
    hub = stage.hub(CONNECTHUB_FAILPOINT="shutdown.before_release")
    stage.killed.add(hub.process.pid)
    hub.kill(signal.SIGTERM)
    hub.process.wait(20)
    assert hub.process.returncode == -signal.SIGKILL
    stage.hub()
    stage.until(lambda: stage.value("SELECT count(*) >= 4 FROM job_logs WHERE status IN ('SUCCESS', 'LOST')"))
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean, dict(verdict.faults)
