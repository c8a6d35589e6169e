"""A database that is sick: connections cut or used up, statements that hang, read-only for a while."""

from __future__ import annotations

import time

import asyncpg
import httpx
import pytest

from tests.faults.stage import Stage


def ready(url: str) -> tuple[int, dict[str, str]]:
    answer = httpx.get(f"{url}/health/ready", timeout=20)
    return answer.status_code, answer.json()["checks"]


def recovered(stage: Stage, url: str) -> float:
    """Until a run goes through, and /health/ready says so: how many seconds."""
    begin = time.monotonic()
    stage.job(f"probe-{begin}", "AsyncJob")
    stage.wait(stage.run(f"probe-{begin}"), seconds=40)
    stage.until(lambda: ready(url)[0] == 200, 40)
    return time.monotonic() - begin


@pytest.mark.ci
def test_a_server_that_crashes_and_comes_back(stage: Stage) -> None:
    stage.job("a", "ThreadJob", {"seconds": 3}, cron_expr="* * * * *", misfire="all")
    first = stage.make_due(2)
    hub = stage.hub()
    stage.until(lambda: stage.told("begin"))
    stage.crash_server()
    status, checks = stage.until(lambda: found if (found := ready(hub.url))[0] == 503 else None)
    assert checks["database"] != "ok" and status == 503
    stage.start_server()
    seconds = recovered(stage, hub.url)
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    print({"recovery_s": seconds})
    assert verdict.is_clean and verdict.lost == 0 and seconds < 15, dict(verdict.faults)


def test_connections_are_cut_one_by_one(stage: Stage) -> None:
    proxy = stage.proxy()
    for number in range(30):
        stage.job(f"job-{number}", "AsyncJob", {"seconds": 0.3}, cron_expr="* * * * *", misfire="all")
    first = stage.make_due(3)
    hub = stage.hub(proxy)
    for _ in range(25):
        proxy.cut(1)
        time.sleep(0.1)
    seconds = recovered(stage, hub.url)
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean and verdict.lost == 0 and seconds < 15, dict(verdict.faults)


def test_all_connections_are_used_up(stage: Stage) -> None:
    proxy = stage.proxy()
    hub = stage.hub(proxy)

    async def limit(number: int) -> None:
        admin = await asyncpg.connect(stage.postgres.admin_dsn)
        await admin.execute(f"ALTER DATABASE connecthub CONNECTION LIMIT {number}")
        await admin.close()

    stage.do(limit(0))
    proxy.cut()
    stage.until(lambda: "too many connections" in hub.log and ready(hub.url)[0] == 503)
    stage.do(limit(-1))
    assert recovered(stage, hub.url) < 20 and stage.judge().is_clean


def test_a_server_that_hangs(stage: Stage) -> None:
    proxy = stage.proxy()
    hub = stage.hub(proxy)
    stage.job("a", "ThreadJob", {"seconds": 1})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    proxy.drop()
    status, checks = stage.until(lambda: found if (found := ready(hub.url))[0] == 503 else None, 40)
    assert checks["database"] == "the database does not answer" and status == 503
    proxy.hand_on()
    assert stage.wait(run_id, seconds=40)["status"] == "SUCCESS"
    assert recovered(stage, hub.url) < 20 and stage.judge().is_clean


def test_a_statement_that_waits_for_a_lock(stage: Stage) -> None:
    for number in range(5):
        stage.job(f"job-{number}", "AsyncJob", cron_expr="* * * * *", misfire="all")
    first = stage.make_due(3)

    async def lock() -> asyncpg.Connection:
        connection = await asyncpg.connect(stage.postgres.dsn)
        await connection.execute("BEGIN; LOCK TABLE job_logs IN ACCESS EXCLUSIVE MODE")
        return connection

    hub = stage.hub()
    connection = stage.do(lock())
    stage.until(lambda: ready(hub.url)[0] == 503, 40)
    stage.do(connection.execute("ROLLBACK"))
    stage.do(connection.close())
    seconds = recovered(stage, hub.url)
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean and seconds < 20, dict(verdict.faults)


def test_a_server_that_is_read_only_for_a_while(stage: Stage) -> None:
    hub = stage.hub()
    stage.job("a", "ThreadJob", {"seconds": 2})
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))

    async def read_only(on: str) -> None:
        admin = await asyncpg.connect(stage.postgres.admin_dsn)
        await admin.execute(f"ALTER DATABASE connecthub SET default_transaction_read_only = {on}")
        mine = admin.get_server_pid()
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'connecthub'"
            f" AND pid <> {mine}"
        )
        await admin.close()

    stage.do(read_only("on"))
    stage.until(lambda: ready(hub.url)[1]["database"] == "the database is read-only", 30)
    stage.until(lambda: stage.told("end"))
    stage.do(read_only("off"))
    row = stage.wait(run_id, seconds=40)
    assert row["status"] == "SUCCESS" and recovered(stage, hub.url) < 20 and stage.judge().is_clean


def test_a_long_foreign_transaction(stage: Stage) -> None:
    async def begin() -> asyncpg.Connection:
        connection = await asyncpg.connect(stage.postgres.dsn)
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job_logs")
        return connection

    foreign = stage.do(begin())
    for number in range(50):
        stage.job(f"job-{number}", "AsyncJob", cron_expr="* * * * *", misfire="all")
    first = stage.make_due(20)
    stage.hub()
    stage.until(lambda: stage.value("SELECT count(*) >= 1000 FROM job_logs WHERE status = 'SUCCESS'"), 60)
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    stage.do(foreign.close())
    assert verdict.is_clean, dict(verdict.faults)
