"""What retention deletes and what it leaves, on a real database, one pass at a time."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from connecthub.config_sections import RetentionSettings
from connecthub.engine.retention import Retention
from connecthub.metrics import Metrics
from connecthub.storage import retention
from tests.engine.conftest import Rig
from tests.engine.test_tick import Ticks

SETTINGS = RetentionSettings(days=90, failure_days=365, keep_last=2)
INSERT = """
INSERT INTO job_logs (job_id, revision_id, trigger, status, scheduled_for, idempotency_key, worker_id,
                      queued_at, finished_at, lease_expires_at, attempt, retry_of)
SELECT id, revision_id, $2, $3, date_trunc('minute', clock_timestamp()) - $4::interval, $5, gen_random_uuid(),
       clock_timestamp() - $4::interval, clock_timestamp() - $4::interval,
       clock_timestamp() + $6::interval, $7, $8
FROM jobs WHERE id = $1 RETURNING id
"""


class Shelf:
    """Runs of some age, and passes over them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.metrics = Metrics()

    def put(self, job_id: str, days: float, status: str = "SUCCESS", **more: Any) -> int:
        row = self.rig.sql(
            INSERT,
            job_id,
            more.get("trigger", "manual"),
            status,
            timedelta(days=days),
            more.get("key", str(uuid4())),
            more.get("lease"),
            more.get("attempt", 1),
            more.get("retry_of"),
        )[0]
        return int(row["id"])

    def let_pass(self, settings: RetentionSettings = SETTINGS) -> None:
        """A pass as a hub makes it that has waited for long enough."""
        self.rig.sql("UPDATE retention SET touched_at = clock_timestamp() - interval '2 h'")
        self.rig.do(Retention(self.rig.db, uuid4(), settings, self.metrics).pass_once())

    def left(self, job_id: str) -> list[int]:
        return [
            row["id"] for row in self.rig.sql("SELECT id FROM job_logs WHERE job_id = $1 ORDER BY id", job_id)
        ]


@pytest.fixture
def shelf(rig: Rig) -> Shelf:
    rig.job("a", "EchoJob")
    rig.job("b", "EchoJob")
    return Shelf(rig)


def test_a_run_goes_only_when_it_is_too_old_and_not_among_the_last_of_its_job(shelf: Shelf) -> None:
    shelf.put("a", 200)
    shelf.put("a", 91, "SKIPPED")
    kept = [shelf.put("a", 89), shelf.put("a", 100), shelf.put("a", 95)]
    few = [shelf.put("b", 400), shelf.put("b", 300)]
    shelf.let_pass()
    assert shelf.left("a") == kept and shelf.left("b") == few
    last = shelf.rig.do(retention.last_pass(shelf.rig.db))
    assert (last["runs"], last["revisions"]) == (2, 0) and last["age_s"] < 60
    assert b'connecthub_retention_rows_total{table="runs"} 2.0' in shelf.metrics.text()


def test_failures_and_lost_runs_are_kept_longer(shelf: Shelf) -> None:
    for status in ("FAILURE", "LOST", "SUCCESS", "CANCELLED"):
        shelf.put("a", 366, status)
    failures = [shelf.put("a", 364, "FAILURE"), shelf.put("a", 364, "LOST")]
    shelf.put("a", 364, "CANCELLED")
    kept = [shelf.put("a", 1), shelf.put("a", 1)]
    shelf.let_pass()
    assert shelf.left("a") == failures + kept
    shelf.let_pass(RetentionSettings(days=1, failure_days=0, keep_last=0))
    assert shelf.left("a") == failures, "for ever"
    shelf.let_pass(RetentionSettings(days=0, keep_last=0))
    shelf.let_pass(RetentionSettings(days=1, failure_days=1, keep_last=0))
    assert shelf.left("a") == []


def test_what_is_going_stays_however_old_it_is(shelf: Shelf) -> None:
    sql = shelf.rig.sql
    shelf.put("a", 900, "SUCCESS", lease=timedelta(minutes=1))  # ended, and its code is still running
    shelf.put("a", 900, "FAILURE", lease=timedelta(minutes=1))
    for status, worker in (("QUEUED", None), ("RUNNING", uuid4())):
        sql(
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, worker_id,"
            " lease_expires_at, queued_at) SELECT id, revision_id, 'manual', $1, $1, $2,"
            " CASE WHEN $1 = 'RUNNING' THEN clock_timestamp() - interval '1 h' END,"
            " clock_timestamp() - interval '900 d' FROM jobs WHERE id = 'a'",
            status,
            worker,
        )
    before = shelf.left("a")
    shelf.put("a", 900, "LOST", lease=timedelta(days=-900))
    shelf.let_pass(RetentionSettings(days=90, keep_last=0))
    assert shelf.left("a") == before and len(before) == 4


def test_the_fire_time_of_a_deleted_run_never_runs_again(shelf: Shelf) -> None:
    """Also when the schedule is saved anew, and when the Job has not moved past it yet."""
    ticks = Ticks(shelf.rig)
    shelf.rig.job("daily", "EchoJob", cron_expr="0 3 * * *", misfire="all")
    ticks.tick()
    gone = shelf.put("daily", 91, trigger="schedule")
    shelf.rig.sql("UPDATE jobs SET next_run_at = clock_timestamp() - interval '92 d' WHERE id = 'daily'")
    shelf.let_pass(RetentionSettings(days=90, keep_last=0))
    assert shelf.left("daily") == [gone], "the Job is still to deal with this time"
    shelf.rig.sql("UPDATE jobs SET next_run_at = NULL WHERE id = 'daily'")
    ticks.tick()
    shelf.let_pass(RetentionSettings(days=90, keep_last=0))
    assert shelf.left("daily") == []
    shelf.rig.sql("UPDATE jobs SET timezone = 'UTC' WHERE id = 'daily'")
    for _ in range(2):
        ticks.tick()
    assert ticks.rows("daily") == []


def test_an_attempt_stays_as_long_as_the_one_before_it(shelf: Shelf) -> None:
    """The owner of a LOST run may come back: it must not find its next attempt gone, and run it again."""
    lost = shelf.put("a", 200, "LOST", key="k")
    after = shelf.put("a", 200, "SUCCESS", key="k", attempt=2, retry_of=lost)
    shelf.let_pass(RetentionSettings(days=90, keep_last=0))
    assert shelf.left("a") == [lost, after]
    shelf.let_pass(RetentionSettings(days=90, failure_days=100, keep_last=0))
    shelf.let_pass(RetentionSettings(days=90, failure_days=100, keep_last=0))
    assert shelf.left("a") == []


def test_revisions_go_when_no_run_and_no_job_needs_them(shelf: Shelf) -> None:
    sql = shelf.rig.sql
    used = shelf.put("a", 1)
    for seconds in range(1, 5):  # numbers 2 to 5; 1 is used by the run
        sql("UPDATE jobs SET timeout_s = $1, enabled = $2 WHERE id = 'a'", seconds, seconds < 3)
    # What this leaves behind is newer than the revision that the Job has.
    sql("INSERT INTO jobs (id, cron_expr, handler_path) VALUES ('b', '', 'x') ON CONFLICT DO NOTHING")
    sql("ALTER TABLE job_revisions DISABLE TRIGGER job_revisions_fixed")
    sql("UPDATE job_revisions SET saved_at = saved_at - interval '100 d'")
    sql("ALTER TABLE job_revisions ENABLE TRIGGER job_revisions_fixed")
    numbers = "SELECT array_agg(number ORDER BY number) AS numbers FROM job_revisions WHERE job_id = 'a'"
    shelf.let_pass()
    assert sql(numbers)[0]["numbers"] == [1, 4, 5], "4 tells since when the Job is disabled"
    sql("UPDATE jobs SET enabled = true WHERE id = 'a'")
    shelf.let_pass()
    assert sql(numbers)[0]["numbers"] == [1, 5, 6], "5 was in force until just now"
    sql("DELETE FROM job_logs WHERE id = $1", used)
    shelf.let_pass()
    assert sql(numbers)[0]["numbers"] == [5, 6]
    assert sql("SELECT FROM job_revisions r JOIN jobs j ON j.revision_id = r.id WHERE j.id = 'b'")


def test_of_two_hubs_one_is_at_it_and_a_pass_that_was_cut_off_is_made_again(shelf: Shelf) -> None:
    rig, first, second = shelf.rig, uuid4(), uuid4()
    old = shelf.put("a", 100)
    assert rig.do(retention.begin(rig.db, first, 3600))
    assert not rig.do(retention.begin(rig.db, second, 3600))
    rig.do(Retention(rig.db, second, RetentionSettings(keep_last=0), shelf.metrics).pass_once())
    assert shelf.left("a") == [old]
    rig.sql("UPDATE retention SET touched_at = clock_timestamp() - interval '2 h'")  # the first one died
    assert rig.do(retention.begin(rig.db, second, 3600))
    step = rig.do(retention.delete_runs(rig.db, first, retention.Kept(90, 365, 0), 0, {}))
    assert step.reached is None, "whoever was taken over from stops"
    ended = "SELECT ended_at = touched_at AS ended FROM retention"
    assert not rig.sql(ended)[0]["ended"]
    for _ in range(100):  # the clock read twice is often the same moment
        rig.do(retention.end(rig.db, second))
        assert rig.sql(ended)[0]["ended"]


def test_a_hub_is_kept_for_as_long_as_runs_are(shelf: Shelf) -> None:
    for name, seen, stopped in (
        ("died", 91, None),
        ("stopped", 91, 91),
        ("alive", 0, None),
        ("young", 89, 89),
    ):
        shelf.rig.sql(
            "INSERT INTO hubs (worker_id, name, version, places, started_at, seen_at, stopped_at)"
            " SELECT gen_random_uuid(), $1, '1', 4, m - interval '200 d', m - make_interval(days => $2),"
            " m - make_interval(days => $3) FROM clock_timestamp() m",
            name,
            seen,
            stopped,
        )
    shelf.let_pass()
    assert [row["name"] for row in shelf.rig.sql("SELECT name FROM hubs ORDER BY name")] == ["alive", "young"]
    assert b'connecthub_retention_rows_total{table="hubs"} 2.0' in shelf.metrics.text()


def test_under_a_newer_schema_nothing_goes(shelf: Shelf) -> None:
    rig, worker = shelf.rig, uuid4()
    shelf.put("a", 400)
    rig.sql("UPDATE jobs SET timeout_s = 1")
    rig.sql("ALTER TABLE job_revisions DISABLE TRIGGER job_revisions_fixed")
    rig.sql("UPDATE job_revisions SET saved_at = saved_at - interval '100 d'")
    rig.sql(
        "INSERT INTO hubs (worker_id, name, version, places, seen_at)"
        " VALUES (gen_random_uuid(), 'gone', '1', 4, clock_timestamp() - interval '400 d')"
    )
    tables = ("job_logs", "job_revisions", "hubs")
    counts = " UNION ALL ".join(f"SELECT count(*) FROM {table}" for table in tables)
    before, kept = rig.sql(counts), retention.Kept(90, 365, 0)
    assert rig.do(retention.begin(rig.db, worker, 3600))
    rig.sql("UPDATE alembic_version SET version_num = '9999'")  # while the pass is at work
    for step in (
        partial(retention.delete_runs, beyond={}),
        retention.delete_revisions,
        retention.delete_hubs,
    ):
        assert rig.do(step(rig.db, worker, kept, 0)) == retention.Step(None, 0)
    shelf.let_pass(RetentionSettings(days=90, keep_last=0))
    touched = rig.sql("SELECT worker_id = $1 AS is_ours FROM retention", worker)[0]
    assert rig.sql(counts) == before and touched["is_ours"], "no other pass has begun"
