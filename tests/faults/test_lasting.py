"""What goes wrong for minutes: no server, a foreign transaction, a plugin that blocks or floods its log."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from statistics import median

import asyncpg
import httpx
import pytest

from tests.faults.stage import LEASE_S, Hub, Stage

pytestmark = pytest.mark.slow


def spooled(hub: Hub) -> int:
    found = re.search(r"^connecthub_spooled_ends (\S+)", httpx.get(f"{hub.url}/metrics").text, re.M)
    assert found
    return int(float(found[1]))


def test_ten_minutes_without_a_server_while_runs_end(stage: Stage) -> None:
    """Thirty runs return one after another, the last one twenty seconds before the server is back."""
    for number in range(30):
        handler = ("AsyncJob", "ThreadJob", "ProcessJob")[number % 3]
        stage.job(f"once-{number}", handler, {"seconds": 20 + 19 * number})
    for number in range(3):
        stage.job(
            f"again-{number}", "AsyncJob", {"seconds": 60}, rerun_lost=True, max_attempts=2, retry_delays=[0]
        )
    stage.job("minute", "AsyncJob", cron_expr="* * * * *", misfire="all")
    first = stage.make_due(0, "minute")
    hub = stage.hub(CONNECTHUB_POOL__SIZE="40")
    once = [stage.run(f"once-{number}") for number in range(30)]
    again = [stage.run(f"again-{number}") for number in range(3)]
    stage.until(lambda: {line["run_id"] for line in stage.told("begin")} >= {*once, *again})
    stage.until(lambda: [line for line in stage.told("end") if line["job_id"] == "minute"])
    stage.crash_server()
    down = time.monotonic()
    most = 0
    while time.monotonic() < down + 600:
        time.sleep(5)
        assert httpx.get(f"{hub.url}/health").status_code == 200
        assert httpx.get(f"{hub.url}/health/ready").status_code == 503
        most = max(most, spooled(hub))
    lines = len(hub.lines)
    stage.start_server()
    begin = time.monotonic()
    rows = [stage.wait(run_id, seconds=60) for run_id in once]
    recovery = time.monotonic() - begin
    stage.until(
        lambda: stage.value("SELECT count(*) = 3 FROM job_logs WHERE status = 'SUCCESS' AND attempt = 2"), 90
    )
    stage.until_ticked()
    stage.sql("UPDATE jobs SET enabled = false")
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    print({"spooled": most, "stored_after_s": round(recovery, 1), "log_lines": lines})
    assert verdict.is_clean and verdict.lost == 3, dict(verdict.faults)
    assert all(json.loads(row["result"])["attempt"] == 1 for row in rows)
    assert most == 33 and recovery < 15 and lines < 100, "it waits with growing delays, and says so once"


def test_ten_minutes_of_a_foreign_transaction(stage: Stage) -> None:
    """It holds back vacuum while 400 Jobs run every minute: the last minute must be like the first."""

    async def hold() -> asyncpg.Connection:
        connection = await asyncpg.connect(stage.postgres.dsn)
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job_logs")
        return connection

    for number in range(400):
        stage.job(f"job-{number}", "AsyncJob", {"seconds": 0.1}, cron_expr="* * * * *")
    first = stage.value("SELECT date_trunc('minute', clock_timestamp()) + interval '1 minute'")
    foreign = stage.do(hold())
    hub = stage.hub(CONNECTHUB_POOL__SIZE="64", CONNECTHUB_POOL__LEASE_S="60")
    minutes = "SELECT count(DISTINCT scheduled_for) FROM job_logs WHERE status = 'SUCCESS'"
    answers, waiting = [], 0
    while stage.value(minutes) < 12:
        time.sleep(5)
        begin = time.monotonic()
        ready = httpx.get(f"{hub.url}/health/ready", timeout=30)
        answers.append(time.monotonic() - begin)
        waiting += ready.status_code == 503 and "ends of runs wait" in ready.json()["checks"]["spool"]
        assert ready.json()["checks"]["tick"] == ready.json()["checks"]["database"] == "ok", ready.text
    stage.sql("UPDATE jobs SET enabled = false")
    due = stage.fires(first)
    stage.settle()
    dead = stage.value("SELECT pg_stat_get_dead_tuples('job_logs'::regclass)")
    stage.do(foreign.close())
    verdict = stage.judge(due)
    delays = stage.sql(
        "SELECT extract(epoch FROM max(queued_at - scheduled_for))::float AS tick,"
        " extract(epoch FROM max(finished_at - scheduled_for))::float AS all_stored FROM job_logs"
        " WHERE status = 'SUCCESS' GROUP BY scheduled_for ORDER BY scheduled_for"
    )[1:]  # the hub was still starting at the first minute
    figures = {"dead rows": dead, "ready after": max(answers), "ends waited": f"{waiting} of {len(answers)}"}
    print({**figures, "minutes": [dict(row) for row in delays]})
    assert verdict.is_clean and verdict.lost == 0, dict(verdict.faults)
    assert dead > 4000 and max(row["tick"] for row in delays) < 2
    assert max(row["all_stored"] for row in delays) < 20


def test_two_minutes_of_a_plugin_that_blocks(stage: Stage) -> None:
    stage.job("block", "BlockingJob", {"seconds": 125})
    stage.job("beside", "AsyncJob", {"seconds": 0})
    stage.job("other", "AsyncJob")
    stage.job("thread", "ThreadJob")
    stage.job("minute", "AsyncJob", cron_expr="* * * * *")
    first = stage.value("SELECT date_trunc('minute', clock_timestamp()) + interval '1 minute'")
    hub = stage.hub(CONNECTHUB_POOL__SIZE="32")
    person = hub.person()
    blocked = stage.run("block")
    stage.run("beside")
    stage.until(lambda: stage.told("begin"))
    pages, beats = [], []
    while not stage.sql("SELECT FROM job_logs WHERE id = $1 AND status = 'SUCCESS'", blocked):
        stage.run("other")
        stage.run("thread")
        begin = time.monotonic()
        assert person.get("/admin/joblogs/list").status_code == 200
        pages.append(time.monotonic() - begin)
        found = re.search(r"^connecthub_heartbeat_age_seconds (\S+)", person.get("/metrics").text, re.M)
        assert found
        beats.append(float(found[1]))
        time.sleep(0.5)
    stage.sql("UPDATE jobs SET enabled = false")
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    delay = "SELECT extract(epoch FROM max({}))::float FROM job_logs WHERE job_id = ANY($1)"
    figures = {
        "runs beside": len(pages) * 2,
        "begun after": stage.value(delay.format("started_at - queued_at"), ["beside", "other", "thread"]),
        "tick": stage.value(delay.format("queued_at - scheduled_for"), ["minute"]),
        "heartbeat": max(beats),
        "page": max(pages),
        "page (median)": median(pages),
    }
    print(figures)
    assert verdict.is_clean and verdict.lost == 0 and verdict.due >= 2, dict(verdict.faults)
    assert figures["begun after"] < 2 and figures["tick"] < 1 and figures["page"] < 2
    assert figures["heartbeat"] < LEASE_S / 4 + 1
    assert f"run {blocked} (block)" in hub.log and "jobs.py:" in hub.log, "the log names the run and the line"


def test_a_gigabyte_of_log(stage: Stage) -> None:
    """A million lines of a kilobyte, and one line of 100 MB after them."""
    stage.job("flood", "FloodJob", {"lines": 1_000_000, "bytes": 100_000_000})
    stage.job("other", "AsyncJob")
    hub = stage.hub()
    person = hub.person()
    stage.wait(stage.run("other"))
    before = memory_mb(hub)
    flood = stage.run("flood")
    stage.until(lambda: stage.told("begin")[1:])
    pages, most = [], 0.0
    while stage.row(flood)["status"] == "RUNNING":
        stage.run("other")
        begin = time.monotonic()
        assert person.get("/admin/joblogs/list").status_code == 200
        pages.append(time.monotonic() - begin)
        most = max(most, memory_mb(hub))
        time.sleep(0.5)
    row = stage.wait(flood)
    stage.settle()
    begun = stage.value(
        "SELECT extract(epoch FROM max(started_at - queued_at))::float FROM job_logs WHERE job_id = 'other'"
    )
    seconds = (row["finished_at"] - row["started_at"]).total_seconds()
    figures = {
        "seconds": seconds,
        "more memory (MB)": most - before,
        "page": max(pages),
        "begun after": begun,
    }
    print(figures)
    assert stage.judge().is_clean and len(row["run_log"].encode()) < 201 * 1024
    assert "line 0 " in row["run_log"] and "[TRUNCATED]" in row["run_log"]
    assert begun < 2 and max(pages) < 5 and most - before < 450


def memory_mb(hub: Hub) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{hub.process.pid}/status").read_text(), re.M)
    assert found
    return int(found[1]) / 1024
