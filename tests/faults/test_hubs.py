"""Hubs that die, sleep, are cut off, or share the work."""

from __future__ import annotations

import json
import signal

import pytest

from connecthub.failpoints import POINTS
from tests.faults.stage import LEASE_S, Stage

EVERY_MINUTE = "* * * * *"


# The others have cases of their own: they are passed in an outage, at shutdown, or by commands.
ELSEWHERE = ("spool.", "shutdown.", "keys.", "restore.")
KILLED_AT = sorted(point for point in POINTS if not point.startswith(ELSEWHERE))


@pytest.mark.parametrize(
    "point",
    [pytest.param(point, marks=[pytest.mark.ci] * (point == "tick.before_commit")) for point in KILLED_AT],
)
def test_a_hub_killed_at_any_point_loses_and_doubles_nothing(stage: Stage, point: str) -> None:
    for number in range(20):
        stage.job(f"job-{number}", "AsyncJob", {"seconds": 0.1}, cron_expr=EVERY_MINUTE, misfire="all")
    first = stage.make_due(3)
    doomed = stage.hub_that_dies(point)
    stage.hub()
    ended = "SELECT count(*) >= 80 FROM job_logs WHERE status IN ('SUCCESS', 'LOST')"
    stage.until(lambda: stage.value(ended), 60)
    stage.settle()
    due = stage.fires(first)
    verdict = stage.judge(due)
    assert doomed.process.returncode == -signal.SIGKILL
    assert (verdict.missed, verdict.doubled, verdict.results_lost) == (0, 0, 0), dict(verdict.faults)
    assert verdict.due >= 80


@pytest.mark.parametrize("asleep_in", ["claim.after_answer", "run.before_start"])
def test_a_hub_that_slept_beyond_its_lease_starts_nothing(stage: Stage, asleep_in: str) -> None:
    stage.job("a", "AsyncJob", rerun_lost=True, max_attempts=2, retry_delays=[0])
    sleeper = stage.hub(CONNECTHUB_FAILPOINT=f"{asleep_in}:stop")
    run_id = stage.run("a")
    stage.wait(run_id, "RUNNING")
    stage.hub()
    stage.wait(run_id, "LOST", seconds=4 * LEASE_S)
    second = stage.until(lambda: stage.sql("SELECT id FROM job_logs WHERE retry_of = $1", run_id))[0]["id"]
    stage.wait(second)
    sleeper.kill(signal.SIGCONT)
    # Whether the beat or the look at stale leases gets to it first, it is noted that this run ended unbegun.
    noted = stage.until(lambda: stage.meta(run_id).get("detail"))
    assert noted.startswith(("not started", "stopped: this hub was cut off"))
    stage.settle()
    verdict = stage.judge()
    assert [line["run_id"] for line in stage.told("begin")] == [second]
    assert verdict.is_clean and verdict.lost == 1, dict(verdict.faults)


def test_a_hub_that_sleeps_while_its_plugins_run_takes_them_up_again(stage: Stage) -> None:
    stage.job("a", "ThreadJob", {"seconds": 1})
    sleeper = stage.hub()
    run_id = stage.run("a")
    stage.until(lambda: stage.told("begin"))
    sleeper.kill(signal.SIGSTOP)
    stage.hub()
    stage.wait(run_id, "LOST", seconds=4 * LEASE_S)
    sleeper.kill(signal.SIGCONT)
    row = stage.wait(run_id)
    assert json.loads(row["result"])["attempt"] == 1 and stage.judge().is_clean


def test_two_hubs_share_the_runs(stage: Stage) -> None:
    for number in range(40):
        stage.job(f"job-{number}", "AsyncJob", {"seconds": 0.5}, cron_expr=EVERY_MINUTE)
    hubs = [stage.hub(), stage.hub()]
    first = stage.make_due(1)
    for hub in hubs:
        hub.kill(signal.SIGCONT)
    stage.until(lambda: stage.value("SELECT count(*) >= 40 FROM job_logs WHERE status = 'SUCCESS'"), 90)
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    shares = stage.sql("SELECT count(*) AS runs FROM job_logs WHERE worker_id IS NOT NULL GROUP BY worker_id")
    assert verdict.is_clean, dict(verdict.faults)
    assert len(shares) == 2 and min(row["runs"] for row in shares) >= 8, shares


def test_cancel_and_run_now_from_either_hub_reach_the_owner(stage: Stage) -> None:
    stage.job("a", "ThreadJob", {"seconds": 60})
    one, other = stage.hub(), stage.hub(CONNECTHUB_POOL__SIZE="1")
    stage.job("block", "ThreadJob", {"seconds": 60})
    people = [one.person(), other.person()]
    runs = []
    for person in people:
        assert person.post("/admin/jobs/a/run").status_code == 303
    stage.until(lambda: len(stage.told("begin")) == 2)
    runs = [line["run_id"] for line in stage.told("begin")]
    for run_id, person in zip(runs, reversed(people), strict=True):
        for_both = person.post(f"/admin/joblogs/{run_id}/cancel")
        assert for_both.status_code == 303
    rows = [stage.wait(run_id, "CANCELLED", seconds=10) for run_id in runs]
    assert {row["reason"] for row in rows} == {"cancelled"} and stage.judge().is_clean


def test_a_hub_that_was_cut_off_stops_what_another_runs_again(stage: Stage) -> None:
    proxy = stage.proxy()
    stage.job("again", "AsyncJob", {"seconds": 30}, rerun_lost=True, max_attempts=2, retry_delays=[0])
    stage.job("once", "ThreadJob", {"seconds": 8})
    alone = stage.hub(proxy)
    again, once = stage.run("again"), stage.run("once")
    stage.until(lambda: len(stage.told("begin")) == 2)
    lease_ends = stage.row(again)["lease_expires_at"]
    proxy.drop()
    stage.hub()
    stage.wait(again, "LOST", seconds=4 * LEASE_S)
    second = stage.until(lambda: stage.sql("SELECT id FROM job_logs WHERE retry_of = $1", again))[0]["id"]
    stage.wait(second, "RUNNING")
    assert "cancelled" not in alone.log
    stage.wait(once, "LOST", seconds=4 * LEASE_S)
    proxy.hand_on()
    proxy.cut()
    row = stage.wait(once)
    assert json.loads(row["result"])["attempt"] == 1, "what may not run twice goes on, and is stored"
    begun = {line["run_id"]: line["at"] for line in stage.told("begin")}
    stopped = next(line["at"] for line in stage.told("stopped") if line["run_id"] == again)
    assert stopped < lease_ends.timestamp() <= begun[second], "it ends before the lease does"
    stage.sql("UPDATE job_logs SET cancel_requested_at = now() WHERE id = $1", second)
    stage.settle()
    assert stage.judge().is_clean


def test_a_restart_loses_nothing(stage: Stage) -> None:
    for number in range(5):
        stage.job(f"job-{number}", "AsyncJob", cron_expr=EVERY_MINUTE, misfire="all")
    first = stage.make_due(5)
    for _ in range(3):
        assert stage.hub().stop() == 0
    stage.hub()
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean and verdict.due >= 30, dict(verdict.faults)
