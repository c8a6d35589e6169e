"""Clocks that are wrong or step, clock changes, late ticks, and long downtimes."""

from __future__ import annotations

import glob
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connecthub.cron import fires_between
from tests.faults.conftest import needs
from tests.faults.stage import Stage

FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def fake_clock(offset: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by what stands in `offset`."""
    libraries = glob.glob(FAKETIME)
    needs("libfaketime", bool(libraries))
    return {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("offset", ["+300", "-300", None], ids=["+300", "-300", "a minute of its own"])
def test_a_hub_whose_wall_clock_is_wrong_fires_at_the_databases_time(
    stage: Stage, offset: str | None
) -> None:
    file = stage.folder / "offset"
    # Its own next minute mark is nearly a minute away when it starts, later than the database's.
    file.write_text(offset or f"+{61 - datetime.now(UTC).second}")
    stage.hub(None, **fake_clock(file))
    stage.job("a", "AsyncJob", cron_expr="* * * * *")
    begin = stage.first_mark("a")
    stage.until(lambda: stage.value("SELECT count(*) > 0 FROM job_logs WHERE status = 'SUCCESS'"), 90)
    row = stage.sql("SELECT *, queued_at - scheduled_for AS late FROM job_logs ORDER BY id")[0]
    assert row["scheduled_for"] == begin and timedelta() <= row["late"] < timedelta(seconds=2)
    # Its handler had to be loaded first, which a busy machine takes seconds for.
    assert abs(row["started_at"] - row["queued_at"]) < timedelta(seconds=10)
    assert stage.judge(stage.fires(begin)).is_clean


def test_of_two_hubs_one_is_five_minutes_off(stage: Stage) -> None:
    file = stage.folder / "offset"
    file.write_text("+300")
    stage.hub(None, **fake_clock(file))
    stage.hub()
    for number in range(20):
        stage.job(f"job-{number}", "AsyncJob", cron_expr="* * * * *")
    begin = stage.first_mark("job-19")
    both = "SELECT count(*) FROM hubs WHERE ticked_at BETWEEN $1 AND $1 + interval '2 s'"
    stage.until(lambda: stage.value(both, begin) == 2, 90)
    stage.settle()
    verdict = stage.judge({job: [begin] for job in stage.fires(begin)})
    late = stage.value("SELECT max(queued_at - scheduled_for) FROM job_logs WHERE scheduled_for = $1", begin)
    assert verdict.is_clean and verdict.due == 20, dict(verdict.faults)
    assert timedelta() <= late < timedelta(seconds=2)


@pytest.mark.ci
def test_a_wall_clock_that_steps_back_an_hour_neither_stops_nor_repeats_the_tick(stage: Stage) -> None:
    file = stage.folder / "offset"
    file.write_text("+0")
    hub = stage.hub(None, **fake_clock(file))
    stage.job("a", "AsyncJob", cron_expr="* * * * *")
    begin = stage.first_mark("a")
    stage.until(lambda: stage.value("SELECT count(*) = 1 FROM job_logs"), 90)
    file.write_text("-3600")
    stage.until(lambda: "stepped" in hub.log)
    stage.until(lambda: stage.value("SELECT count(*) = 2 FROM job_logs"), 90)
    stage.settle()
    rows = stage.sql("SELECT scheduled_for, queued_at - scheduled_for AS late FROM job_logs ORDER BY id")
    assert [row["scheduled_for"] for row in rows] == [begin, begin + timedelta(minutes=1)]
    assert all(row["late"] < timedelta(seconds=2) for row in rows), rows
    assert stage.judge(stage.fires(begin)).is_clean


CHANGES = [
    # zone, cron, the moment before, and what the design says fires after it (UTC)
    ("America/New_York", "30 2 * * *", "2026-03-07T12:00", ["2026-03-08T07:00", "2026-03-09T06:30"]),
    ("America/New_York", "30 1 * * *", "2026-10-31T12:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T02:00", ["2026-10-03T15:30", "2026-10-04T15:15"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00", ["2026-04-04T14:45", "2026-04-05T15:15"]),
]


def test_clock_changes_fire_what_the_design_says(stage: Stage) -> None:
    """Each Job as if its hub had been down since before the change: `all` makes up what was missed."""
    for number, (zone, cron, before, _) in enumerate(CHANGES):
        stage.job(f"job-{number}", "AsyncJob", cron_expr=cron, timezone=zone, misfire="all")
        moment = datetime.fromisoformat(before).replace(tzinfo=UTC)
        stage.sql(
            "UPDATE jobs SET schedule_from = $2, next_run_at = NULL WHERE id = $1", f"job-{number}", moment
        )
    stage.hub()
    stage.until(lambda: stage.value("SELECT count(DISTINCT job_id) = $1 FROM job_logs", len(CHANGES)))
    stage.settle(120)
    for number, (zone, cron, before, expected) in enumerate(CHANGES):
        rows = stage.sql(
            "SELECT coalesce((meta->'missed'->>'from')::timestamptz, scheduled_for) AS first FROM job_logs"
            " WHERE job_id = $1",
            f"job-{number}",
        )
        first = min(row["first"] for row in rows)
        after = datetime.fromisoformat(before).replace(tzinfo=UTC)
        fires = fires_between(cron, zone, after, after + timedelta(days=3), 2)
        wanted = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in expected]
        assert fires == wanted, (zone, cron, fires)
        assert first == wanted[0], (zone, cron)


@pytest.mark.parametrize("misfire", ["latest", "all", "skip"])
def test_a_tick_that_came_twenty_minutes_late(stage: Stage, misfire: str) -> None:
    stage.job("a", "AsyncJob", cron_expr="*/5 * * * *", misfire=misfire)
    stage.job("b", "AsyncJob", cron_expr="*/5 * * * *", misfire=misfire, misfire_window_s=1)
    first = stage.make_due(20)
    stage.hub()
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean, dict(verdict.faults)
    ran = stage.value("SELECT count(*) FROM job_logs WHERE job_id = 'a' AND status = 'SUCCESS'")
    missed = len([moment for moment in due["a"] if moment <= max(due["a"])])
    assert ran == {"latest": 1, "all": missed, "skip": ran}[misfire]
    if misfire == "skip":
        assert ran <= 1


def test_a_month_of_downtime_of_a_thousand_jobs_starts_within_seconds(stage: Stage) -> None:
    stage.job("job", "AsyncJob", cron_expr="* * * * *")
    stage.sql(
        "INSERT INTO jobs (id, cron_expr, timezone, handler_path, public_cfg, misfire)"
        " SELECT 'job-' || n, cron_expr, timezone, handler_path, public_cfg,"
        " (ARRAY['latest', 'skip', 'all'])[1 + n % 3] FROM jobs, generate_series(1, 999) n WHERE id = 'job'"
    )
    first = stage.make_due(30 * 24 * 60)
    begin = time.monotonic()
    stage.hub(CONNECTHUB_POOL__SIZE="64")
    stage.until(lambda: stage.value("SELECT max(ticked_at) FROM hubs"), 60)
    took = time.monotonic() - begin
    rows = stage.value("SELECT count(*) FROM job_logs WHERE meta ? 'missed'")
    print({"start_s": took, "spans": rows})
    assert took < 20 and rows == 1000
    spans = "SELECT sum((meta->'missed'->>'count')::int) FROM job_logs WHERE meta ? 'missed'"
    inserted = "SELECT count(*) FROM job_logs WHERE status <> 'SKIPPED' AND scheduled_for >= $1"
    told = stage.value(spans) + stage.value(inserted, first)
    assert told >= 1000 * 30 * 24 * 60


def test_a_record_that_was_deleted_never_makes_its_fire_time_run_again(stage: Stage) -> None:
    stage.job("a", "AsyncJob", cron_expr="* * * * *")
    stage.make_due(1)
    hub = stage.hub()
    stage.until(lambda: stage.told("end"))
    stage.settle()
    begun = len(stage.told("begin"))
    stage.sql("DELETE FROM job_logs")
    assert hub.stop() == 0
    minute = stage.value("SELECT date_trunc('minute', clock_timestamp())")
    stage.hub()
    stage.until(lambda: stage.value("SELECT max(ticked_at) > $1 FROM hubs", minute))
    again = stage.value("SELECT count(*) FROM job_logs WHERE scheduled_for < $1", minute)
    assert again == 0 and begun >= 1
