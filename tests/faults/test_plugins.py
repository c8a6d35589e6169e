"""Plugins that misbehave, beside others that must not notice."""

from __future__ import annotations

import json
import signal
import time

import httpx
import pytest

from tests.faults.stage import Stage


@pytest.mark.ci
def test_a_plugin_that_blocks_its_loop_delays_nobody_else(stage: Stage) -> None:
    stage.job("block", "BlockingJob", {"seconds": 75})
    hub = stage.hub()
    blocked = stage.run("block")
    stage.until(lambda: stage.told("begin"))
    stage.job("minute", "AsyncJob", cron_expr="* * * * *")
    for number in range(10):
        stage.job(f"other-{number}", "AsyncJob")
        stage.run(f"other-{number}")
    ended = "SELECT count(*) = 10 FROM job_logs WHERE job_id LIKE 'other-%' AND status = 'SUCCESS'"
    stage.until(lambda: stage.value(ended))
    others = "SELECT started_at - queued_at AS delay FROM job_logs WHERE job_id LIKE 'other-%'"
    slowest = max(row["delay"].total_seconds() for row in stage.sql(others))
    pages = []
    person = hub.person()
    stage.until(lambda: stage.value("SELECT count(*) > 0 FROM job_logs WHERE job_id = 'minute'"), 70)
    for _ in range(20):
        begin = time.monotonic()
        assert person.get("/admin/joblogs/list").status_code == 200
        pages.append(time.monotonic() - begin)
    fired = stage.sql("SELECT queued_at - scheduled_for AS late FROM job_logs WHERE job_id = 'minute'")
    beat = httpx.get(f"{hub.url}/health/ready").json()["checks"]["heartbeat"]
    figures = {"begin": slowest, "page": max(pages), "tick": fired[0]["late"].total_seconds()}
    print(figures)
    assert figures["begin"] < 2 and figures["tick"] < 1 and figures["page"] < 2 and beat == "ok"
    assert f"run {blocked} (block)" in hub.log and "jobs.py:" in hub.log, "the log names the run and the line"
    assert stage.wait(blocked, seconds=90)["status"] == "SUCCESS"
    assert stage.judge().is_clean


@pytest.mark.parametrize("what", ["SystemExit", "KeyboardInterrupt", "StopIteration", "GeneratorExit"])
def test_a_plugin_that_raises_what_ends_programs(stage: Stage, what: str) -> None:
    stage.job("a", "ExitJob", {"what": what})
    stage.job("b", "AsyncJob")
    stage.hub()
    row = stage.wait(stage.run("a"), "FAILURE")
    assert row["reason"] == "exception" and what in row["message"]
    assert stage.wait(stage.run("b"))["status"] == "SUCCESS"


def test_what_a_plugin_forks_ends_when_it_is_told_to_and_its_hub_does_not(stage: Stage) -> None:
    stage.job("a", "ForkJob", {"children": 20})
    stage.job("b", "AsyncJob")
    hub = stage.hub()
    assert json.loads(stage.wait(stage.run("a"))["result"])["ended"] == [-signal.SIGTERM] * 20
    assert stage.wait(stage.run("b"))["status"] == "SUCCESS"
    assert "stopping" not in hub.log and hub.stop() == 0, "a signal to the hub itself still counts"


def test_a_thread_beyond_its_timeout_keeps_its_place_and_counts_as_going(stage: Stage) -> None:
    stage.job("a", "ThreadJob", {"seconds": 12, "stubborn": True}, timeout_s=1, cron_expr="* * * * *")
    hub = stage.hub(CONNECTHUB_POOL__SIZE="1")
    run_id = stage.run("a")
    row = stage.wait(run_id, "FAILURE")
    assert row["reason"] == "timeout" and row["lease_expires_at"] is not None
    metrics = httpx.get(f"{hub.url}/metrics").text
    assert "connecthub_runs_past_their_end 1.0" in metrics and "connecthub_places_taken 1.0" in metrics
    assert "Still running after timeout" in hub.person().get(f"/admin/joblogs/details/{run_id}").text
    stage.make_due(1)
    stage.job("b", "AsyncJob")
    waiting = stage.run("b")
    assert stage.row(waiting)["status"] == "QUEUED", "the one place is still held"
    stage.wait(waiting, seconds=30)
    late = json.loads(stage.row(run_id)["meta"])
    assert late["returned_late"] == "value" and stage.row(run_id)["lease_expires_at"] is None


def test_a_plugin_that_swallows_cancellation(stage: Stage) -> None:
    stage.job("a", "SwallowJob", {"seconds": 9}, timeout_s=1)
    stage.job("b", "AsyncJob")
    stage.hub()
    run_id = stage.run("a")
    row = stage.wait(run_id, "FAILURE")
    assert row["reason"] == "timeout" and row["lease_expires_at"] is not None
    assert stage.wait(stage.run("b"))["status"] == "SUCCESS"
    stage.until(lambda: stage.row(run_id)["lease_expires_at"] is None)


def test_a_child_that_is_killed_with_its_hub(stage: Stage) -> None:
    stage.job("a", "ProcessJob", {"seconds": 60}, rerun_lost=True, max_attempts=2, retry_delays=[0])
    hub = stage.hub()
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    stage.kill(hub)
    stage.hub()
    stage.wait(run_id, "LOST")
    second = stage.until(lambda: stage.sql("SELECT id FROM job_logs WHERE retry_of = $1", run_id))[0]["id"]
    stage.until(lambda: [line for line in stage.told("begin") if line["run_id"] == second])
    time.sleep(1)  # were the first one still there, it would end, or be told to stop, about now
    assert not [line for line in stage.lines() if line["run_id"] == run_id and line["event"] != "begin"]
