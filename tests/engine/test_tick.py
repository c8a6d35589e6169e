"""From a due Job to its rows: misfire, overlap, changes, pause. The tick itself, on a real database."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest

from connecthub.engine.tick import DatabaseMinute, Ticker
from connecthub.metrics import Metrics
from connecthub.storage import requests
from connecthub.storage.audit import Actor
from connecthub.storage.database import ENGINE_SETTINGS, Database
from tests.engine.conftest import Rig

_WAITING = (
    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND (query LIKE '%FROM jobs%FOR NO KEY UPDATE%' OR query LIKE '%FROM jobs%AS is_due%')"
)


class Ticks:
    """One tick at a time, with next_run_at moved into the past before it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def due_now(self, job_id: str) -> None:
        """It is due at this minute, and at none that the test may live to see."""
        minute = self.rig.sql("SELECT date_trunc('minute', clock_timestamp()) AS minute")[0]["minute"]
        cron_expr = f"{minute.minute} {minute.hour} * * *"
        self.rig.sql("UPDATE jobs SET cron_expr = $2, timezone = 'UTC' WHERE id = $1", job_id, cron_expr)
        self.rig.sql("UPDATE jobs SET next_run_at = $2 WHERE id = $1", job_id, minute)

    def due(self, job_id: str, minutes_late: int) -> None:
        self.rig.sql(
            "UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp())"
            " - make_interval(mins => $2) WHERE id = $1",
            job_id,
            minutes_late,
        )

    def tick(self) -> None:
        async def tick() -> None:
            await Ticker(self.rig.db, Metrics(), lambda: None).tick_once()

        self.rig.do(tick())

    def rows(self, job_id: str) -> list[tuple[str, str | None]]:
        rows = self.rig.sql(
            "SELECT status, reason FROM job_logs WHERE job_id = $1 ORDER BY scheduled_for", job_id
        )
        return [(row["status"], row["reason"]) for row in rows]


def test_a_due_job_is_queued_once_and_moves_on(rig: Rig) -> None:
    ticks = Ticks(rig)
    rig.job("a", "EchoJob", cron_expr="* * * * *")
    rig.job("other", "EchoJob")
    ticks.due_now("a")
    ticks.tick()
    ticks.tick()
    assert ticks.rows("a") == [("QUEUED", None)] and ticks.rows("other") == []
    row = rig.sql(
        "SELECT l.*, j.last_run_at, j.next_run_at, j.revision_id AS current"
        " FROM job_logs l, jobs j WHERE j.id = 'a'"
    )[0]
    assert row["scheduled_for"] == row["last_run_at"] and row["next_run_at"] - row[
        "scheduled_for"
    ] == timedelta(days=1)
    assert row["idempotency_key"] == f"a:{row['scheduled_for']:%Y-%m-%dT%H:%M:%SZ}"
    assert row["revision_id"] == row["current"] and row["attempt"] == 1


def test_latest_runs_the_newest_missed_time_and_says_what_it_left(rig: Rig) -> None:
    ticks = Ticks(rig)
    minute = rig.sql("SELECT extract(minute FROM clock_timestamp())::int AS it")[0]["it"]
    # The newest fire time was five minutes ago, and the next one comes in five.
    rig.job("a", "EchoJob", cron_expr=f"{(minute + 5) % 10}-59/10 * * * *")
    ticks.due("a", 35)
    ticks.tick()
    assert ticks.rows("a") == [("SKIPPED", "missed"), ("QUEUED", None)]
    missed = json.loads(
        rig.sql("SELECT meta->>'missed' AS it FROM job_logs WHERE reason = 'missed'")[0]["it"]
    )
    assert missed["count"] == 3 and missed["from"] < missed["to"]


def test_latest_beyond_its_window_runs_nothing(rig: Rig) -> None:
    ticks = Ticks(rig)
    rig.job("a", "EchoJob", cron_expr="0 0 1 1 *", misfire_window_s=60)
    rig.sql(
        "UPDATE jobs SET next_run_at = date_trunc('year', clock_timestamp() AT TIME ZONE 'Asia/Shanghai')"
        " AT TIME ZONE 'Asia/Shanghai'"
    )
    ticks.tick()
    assert ticks.rows("a") == [("SKIPPED", "missed")]


def test_all_makes_up_at_most_a_hundred_and_skip_none(rig: Rig) -> None:
    ticks = Ticks(rig)
    for policy in ("all", "skip"):
        rig.job(policy, "EchoJob", cron_expr="* * * * *", misfire=policy)
        ticks.due(policy, 150)
    ticks.tick()
    made_up = ticks.rows("all")
    assert made_up.count(("QUEUED", None)) == 100 and made_up.count(("SKIPPED", "missed")) == 1
    assert ticks.rows("skip")[0] == ("SKIPPED", "missed")
    assert ticks.rows("skip").count(("QUEUED", None)) == 1


def test_overlap_skip_queue_and_allow(rig: Rig) -> None:
    ticks = Ticks(rig)
    for overlap in ("skip", "queue", "allow"):
        rig.job(overlap, "EchoJob", cron_expr="* * * * *", overlap=overlap)
        rig.run(overlap)
        ticks.due_now(overlap)
    ticks.tick()
    rows = {
        overlap: rig.sql(
            "SELECT status, reason, meta FROM job_logs WHERE trigger = 'schedule' AND job_id = $1", overlap
        )[0]
        for overlap in ("skip", "queue", "allow")
    }
    assert (rows["skip"]["status"], rows["skip"]["reason"]) == ("SKIPPED", "overlap")
    blocked_by = json.loads(rows["skip"]["meta"])["blocked_by"]
    assert rig.row(blocked_by)["job_id"] == "skip"
    assert rows["queue"]["status"] == "QUEUED" and rows["allow"]["status"] == "QUEUED"
    rig.sql("DELETE FROM job_logs WHERE job_id = 'queue' AND trigger = 'manual'")
    rig.sql("UPDATE job_logs SET scheduled_for = scheduled_for - interval '1 h' WHERE job_id = 'queue'")
    ticks.due_now("queue")
    ticks.tick()
    assert ticks.rows("queue") == [("QUEUED", None), ("SKIPPED", "overlap")]


def test_a_newer_fire_time_takes_the_place_of_a_delayed_attempt(rig: Rig) -> None:
    ticks = Ticks(rig)
    rig.job("a", "EchoJob", cron_expr="* * * * *")
    rig.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, attempt, idempotency_key, not_before)"
        " SELECT id, revision_id, 'schedule', 'QUEUED', 2, 'k', clock_timestamp() + interval '1 h' FROM jobs"
    )
    ticks.due_now("a")
    ticks.tick()
    assert ticks.rows("a") == [("QUEUED", None), ("CANCELLED", "superseded")]


def test_a_broken_schedule_fails_alone_and_is_left_until_changed(rig: Rig) -> None:
    ticks = Ticks(rig)
    for job_id, cron_expr, zone in (
        ("cron", "61 * * * *", "Asia/Shanghai"),
        ("zone", "* * * * *", "Mars/Olympus"),
        ("good", "* * * * *", "Asia/Shanghai"),
    ):
        rig.job(job_id, "EchoJob", cron_expr=cron_expr, timezone=zone)
    ticks.due_now("good")
    ticks.tick()
    ticks.tick()
    assert ticks.rows("cron") == ticks.rows("zone") == [("SKIPPED", "bad_schedule")]
    assert ticks.rows("good") == [("QUEUED", None)]
    errors = rig.sql("SELECT id, schedule_error FROM jobs WHERE schedule_error IS NOT NULL ORDER BY id")
    assert [row["id"] for row in errors] == ["cron", "zone"] and "61" in errors[0]["schedule_error"]
    rig.sql("UPDATE jobs SET cron_expr = '* * * * *' WHERE id = 'cron'")
    assert rig.sql("SELECT FROM jobs WHERE id = 'cron' AND schedule_error IS NULL")


def test_a_time_that_no_calendar_reaches_fails_alone(rig: Rig) -> None:
    ticks = Ticks(rig)
    for job_id in ("never", "good"):
        rig.job(job_id, "EchoJob", cron_expr="* * * * *")
        ticks.due_now(job_id)
    rig.sql("UPDATE jobs SET next_run_at = '-infinity' WHERE id = 'never'")
    ticks.tick()
    assert ticks.rows("good") == [("QUEUED", None)]
    assert ticks.rows("never") == [("SKIPPED", "bad_schedule")]


def test_while_paused_nothing_is_inserted_and_nothing_claimed(hub: Rig) -> None:
    ticks = Ticks(hub)
    hub.do(requests.set_paused(hub.db, True, actor=Actor("li.na", None)))
    hub.job("a", "EchoJob", cron_expr="* * * * *")
    ticks.due("a", 10)
    waiting = hub.run("a")
    ticks.tick()
    assert ticks.rows("a") == [("QUEUED", None)] and hub.row(waiting)["trigger"] == "manual"
    hub.do(requests.set_paused(hub.db, False, actor=Actor("li.na", None)))
    assert hub.wait(waiting)["status"] == "SUCCESS"
    ticks.tick()
    assert ("SKIPPED", "missed") in ticks.rows("a")


def test_runs_of_one_job_follow_each_other_unless_overlap_is_allowed(rig: Rig) -> None:
    ticks = Ticks(rig)
    rig.job("a", "EchoJob", cron_expr="* * * * *", misfire="all")
    ticks.due("a", 5)
    ticks.tick()
    rig.start_hub()
    rig.until(lambda: not rig.sql("SELECT FROM job_logs WHERE status IN ('QUEUED', 'RUNNING')"))
    rows = rig.sql("SELECT * FROM job_logs WHERE status = 'SUCCESS' ORDER BY scheduled_for")
    assert len(rows) >= 5
    for before, after in pairwise(rows):
        assert before["finished_at"] <= after["started_at"]


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("EXCLUSIVE", id="that waits for Jobs"),
        pytest.param("ACCESS EXCLUSIVE", id="that waits for its first look"),
    ],
)
def test_a_tick_that_the_stop_of_its_hub_breaks_off_is_no_error(
    rig: Rig, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """And it does not begin again."""

    async def hold() -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(rig.dsn)
        await connection.execute(f"BEGIN; LOCK TABLE jobs IN {mode} MODE")
        return connection

    rig.job("a", "EchoJob", cron_expr="* * * * *")
    Ticks(rig).due_now("a")
    holder = rig.do(hold())
    rig.start_hub()
    rig.until(lambda: rig.sql(_WAITING))
    rig.stop_hub()
    assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text
    rig.do(holder.close())
    rig.until(lambda: not rig.sql(_WAITING))
    assert Ticks(rig).rows("a") == []


def test_the_clock_of_the_database_lies_between_question_and_answer() -> None:
    """A slow answer (it waited for a lock, or the loop was held up) tells less, and spoils nothing."""
    minute = DatabaseMinute()
    here = datetime(2026, 11, 28, tzinfo=UTC)
    ahead = timedelta(seconds=5)
    ms = timedelta(milliseconds=1)
    minute.learn(here, here + ahead + ms, here + 2 * ms)
    assert abs(minute.offset - ahead) <= ms
    known = minute.offset
    minute.learn(here, here + ahead + 1800 * ms, here + 1802 * ms)
    assert minute.offset == known
    minute.learn(here, here - ahead, here + ms)  # another server, or its clock was set
    assert abs(minute.offset + ahead) <= ms
    aim = minute.get_next_fire_time(None, here)
    assert timedelta(0) < here - minute.offset - aim < 5 * ms
    assert minute.get_next_fire_time(None, aim + ms) == aim  # the first aim may be late
    for late in (0 * ms, ms, 3 * ms):  # each mark is aimed at once
        assert minute.get_next_fire_time(aim, aim + late) == aim + timedelta(minutes=1)


def test_a_tick_that_is_right_before_its_mark_waits_for_it() -> None:
    async def begins() -> datetime:
        minute = DatabaseMinute()
        mark = datetime(2026, 11, 28, tzinfo=UTC)
        minute.offset = mark - timedelta(milliseconds=1.9) - datetime.now(UTC)
        await minute.begins()
        return datetime.now(UTC) + minute.offset

    assert asyncio.run(begins()) >= datetime(2026, 11, 28, tzinfo=UTC)


def test_missed_fire_times_of_a_job_are_queued_in_their_order(dsn: str, rig: Rig) -> None:
    """By rule 6 they run by their ids; also where PostgreSQL has little memory to join them in."""
    rig.sql(
        "INSERT INTO jobs (id, cron_expr, timezone, handler_path, misfire, overlap)"
        " SELECT 'job-' || n, '* * * * *', 'UTC', 'tests:Any', 'all', 'queue'"
        " FROM generate_series(1, 1000) n"
    )
    rig.sql(
        "UPDATE jobs SET schedule_from = clock_timestamp() - interval '1 day',"
        " next_run_at = date_trunc('minute', clock_timestamp()) - interval '6 minutes'"
        " - make_interval(secs => substr(id, 5)::int * 0.001)"
    )

    async def tick() -> None:
        db = await Database.open(dsn, size=1, settings=ENGINE_SETTINGS | {"work_mem": "64kB"})
        await Ticker(db, Metrics(), lambda: None).tick_once()
        await db.close()

    rig.do(tick())
    found = rig.sql(
        "SELECT count(*) AS runs, count(*) FILTER (WHERE before > scheduled_for) AS wrong FROM"
        " (SELECT scheduled_for, lag(scheduled_for) OVER (PARTITION BY job_id ORDER BY id) AS before"
        "  FROM job_logs) l"
    )[0]
    assert found["runs"] >= 5000 and found["wrong"] == 0
