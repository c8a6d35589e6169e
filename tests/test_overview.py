"""The overview over HTTP: the verdict's rules, failing and running Jobs, figures, and fragments."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from connecthub.web.hours import HOUR
from connecthub.web.overview import _Drawer, percent
from tests.web_hub import Hub, insert_job

pytest_plugins = ["tests.web_hub"]

DAY = timedelta(days=1)


def alive(hub: Hub, *, ticked: str = "0 s") -> None:
    hub.sql(
        "INSERT INTO hubs (worker_id, name, version, places, ticked_at)"
        " VALUES (gen_random_uuid(), 'hub', '1', 4, clock_timestamp() - $1::text::interval)",
        ticked,
    )


def ran(hub: Hub, status: str, ago: str = "10 min", job_id: str = "sync-1", **more: Any) -> int:
    ended = status not in ("QUEUED", "RUNNING")
    rows = hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, reason,"
        " idempotency_key, message, queued_at,"
        " started_at, finished_at, worker_id, lease_expires_at, progress)"
        " SELECT id, revision_id, 'manual', $2, $3, gen_random_uuid()::text, $4,"
        " clock_timestamp() - $5::text::interval,"
        " CASE WHEN $2 <> 'QUEUED' THEN clock_timestamp() - $5::text::interval END,"
        " CASE WHEN $6 THEN clock_timestamp() - $5::text::interval + interval '2 s' END,"
        " CASE WHEN $2 <> 'QUEUED' THEN coalesce((SELECT worker_id FROM hubs), gen_random_uuid()) END,"
        " CASE WHEN $2 = 'RUNNING' THEN clock_timestamp() + interval '1 min' END, $7::jsonb"
        " FROM jobs WHERE id = $1 RETURNING id",
        job_id,
        status,
        more.get("reason"),
        more.get("message"),
        ago,
        ended,
        more.get("progress"),
    )
    return int(rows[0]["id"])


def verdict(hub: Hub) -> str:
    found = re.search(r'class="hub-v-says">.*?</i>\s*(.*?)</p>', hub.page("/admin/"), re.S)
    assert found
    return found[1].strip()


def test_the_verdict_takes_the_first_rule_that_holds(hub: Hub) -> None:
    assert "No hub has reported yet" in verdict(hub)
    alive(hub)
    assert verdict(hub) == "There is no Job yet"
    insert_job(hub)
    assert verdict(hub) == "Everything is fine"
    hub.sql("UPDATE hubs SET places = 1, taken = 0")  # what it told of itself may be a beat old
    ran(hub, "RUNNING")
    assert verdict(hub).startswith("Every place is taken")
    assert "1 / 1" in hub.page("/admin/")
    hub.sql("UPDATE hubs SET worker_id = gen_random_uuid()")
    assert "0 / 1" in hub.page("/admin/"), "a hub that is no more has no places, and its runs hold none"
    hub.sql("UPDATE job_logs SET worker_id = (SELECT worker_id FROM hubs)")
    hub.sql("UPDATE job_logs SET status = 'SUCCESS', finished_at = now()")
    assert "1 / 1" in hub.page("/admin/"), "it has ended, and its code goes on"
    hub.sql("UPDATE job_logs SET lease_expires_at = NULL")
    assert verdict(hub) == "Everything is fine" and "0 / 1" in hub.page("/admin/")
    hub.sql("DELETE FROM job_logs")
    hub.sql("UPDATE hubs SET places = 4")
    hub.sql("UPDATE jobs SET timeout_s = 5")
    going = ran(hub, "RUNNING")
    assert verdict(hub) == "1 run is still going after its timeout"
    hub.sql("UPDATE jobs SET timeout_s = 0")
    hub.sql("UPDATE job_logs SET revision_id = (SELECT revision_id FROM jobs)")
    for _ in range(5):
        ran(hub, "SUCCESS", "20 min")
    assert verdict(hub) == "1 run is unusually slow"
    ran(hub, "FAILURE", reason="timeout")
    assert verdict(hub) == "1 Job is failing"
    hub.sql(
        "UPDATE job_logs SET status = 'CANCELLED', finished_at = now(), lease_expires_at ="
        " NULL WHERE id = $1",
        going,
    )
    ran(hub, "QUEUED", "2 min")
    assert verdict(hub).startswith("The scheduler stands still since")
    hub.sql("DELETE FROM job_logs WHERE status = 'QUEUED'")
    hub.sql("UPDATE hubs SET ticked_at = clock_timestamp() - interval '3 min'")
    assert verdict(hub).startswith("The scheduler stands still since")
    hub.sql("UPDATE hub_state SET paused_at = now(), paused_by = 'li.na'")
    assert verdict(hub) == "The hub is paused: no Job starts"


def test_what_waits_for_its_own_job_is_no_standstill(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    ran(hub, "RUNNING", "3 min")
    ran(hub, "QUEUED", "2 min")
    assert verdict(hub) == "Everything is fine"


def test_failing_and_running_are_told_with_their_figures(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    insert_job(hub, "other")
    ran(hub, "SUCCESS", "3 h")
    for ago in ("2 h", "1 h"):
        ran(hub, "FAILURE", ago, reason="exception")
    bad = ran(hub, "FAILURE", "30 min", reason="timeout", message="<b>no answer</b>")
    ran(hub, "SKIPPED", "10 min", reason="overlap")
    going = ran(hub, "RUNNING", "1 min", "other", progress='{"done": 31, "total": 50}')
    page = hub.page("/admin/")
    for text in (
        "3 in a row",
        "last success",
        "Timeout",
        f"/admin/joblogs/details/{bad}?confirm=retry",
        "62%",
        "31 / 50",
    ):
        assert text in page, text
    assert f"/admin/joblogs/details/{going}?confirm=cancel" in page
    assert "&lt;b&gt;no answer" in hub.client.get("/admin/").text
    assert "25.0%" in page, "one success of four"
    [counted] = re.findall(r'href="(/admin/joblogs/list\?[^"]*)">25.0%<', page)[:1]
    assert "from=" in counted and "6 match" in hub.page(counted), "whole hours are counted"
    assert len(re.findall(r'class="hub-m-failure" x=', page)) >= 2
    hub.sql("UPDATE jobs SET enabled = false WHERE id = 'sync-1'")
    assert "Nothing is failing" in hub.page("/admin/"), "a disabled Job does not fail"


def test_a_broken_schedule_is_told_in_the_readers_language(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    hub.sql("UPDATE jobs SET cron_expr = '0 25 * * *'")
    hub.sql("UPDATE jobs SET schedule_error = 'hour 25 is out of range'")
    hub.client.headers["Accept-Language"] = "zh"
    now = datetime.now(UTC) + timedelta(minutes=5)
    for path in ("", "jobs/details/sync-1", f"jobs/details/sync-1?tab=why&at={now:%Y-%m-%dT%H:%M}&zone=UTC"):
        page = hub.page(f"/admin/{path}")
        assert "小时：25 大于 23" in page and "out of range" not in page, path


def test_columns_of_a_week_tell_their_day(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    ran(hub, "SUCCESS", "3 h")
    titles = re.findall(r"<title>(\d\d-\d\d \d\d:\d\d)–\d\d:\d\d ", hub.page("/admin/?hours=7d"))
    assert len(titles) == len(set(titles)) == 28


def test_fragments_say_when_nothing_has_changed(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    live = {"Hub-Live": "1"}
    first = hub.client.get("/admin/", headers=live)
    assert first.status_code == 200 and "<html" not in first.text and 'data-live="verdict"' in first.text
    etag = first.headers["etag"]
    assert hub.client.get("/admin/", headers={**live, "If-None-Match": etag}).status_code == 304
    ran(hub, "FAILURE", reason="timeout")
    changed = hub.client.get("/admin/", headers={**live, "If-None-Match": etag})
    assert changed.status_code == 200 and "1 Job is failing" in changed.text
    blocks = [
        dict(re.findall(r'data-live="(\w+)" data-v="(\w+)"', answer.text)) for answer in (first, changed)
    ]
    assert blocks[0]["failing"] != blocks[1]["failing"] and blocks[0]["running"] == blocks[1]["running"]


def test_it_says_what_is_kept_and_what_the_last_clean_up_took(hub: Hub) -> None:
    assert "Runs are kept for 90 days, failed ones for 365; the last 100 of each Job stay." in hub.page(
        "/admin/"
    )
    assert "No clean-up yet." in hub.page("/admin/")
    hub.sql("UPDATE retention SET touched_at = now() - interval '7 min', runs = 1204, revisions = 3")
    page = hub.page("/admin/")
    assert "7 min ago" in page and "removed 1,204 runs and 3 revisions." in page


def test_a_rate_is_never_rounded_up_to_all() -> None:
    assert [percent(share) for share in (None, 1.0, 0.99999, 0.9869, 0.0)] == [
        "—",
        "100%",
        "99.9%",
        "98.6%",
        "0.0%",
    ]


def test_up_next_counts_down(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    soon = datetime.now(UTC) + timedelta(minutes=10)
    hub.sql("UPDATE jobs SET next_run_at = $1, timezone = timezone", soon)
    hub.sql("UPDATE jobs SET next_run_at = $1", soon)
    assert re.search(r'data-tick="countdown">9:5\d<', hub.page("/admin/"))


def test_a_new_job_is_up_next_before_the_tick_has_seen_it(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    hub.sql("UPDATE jobs SET cron_expr = '0 0 30 2 *'")
    assert "No fire time ahead" in hub.page("/admin/")
    hub.sql("UPDATE jobs SET cron_expr = '0 0 1 1 *'")
    assert hub.sql("SELECT next_run_at FROM jobs")[0]["next_run_at"] is None
    assert re.search(r'class="hub-count"><time [^>]*01-01 00:00:00 \+08:00', hub.page("/admin/"))


def test_a_hub_that_runs_old_code_says_so(hub: Hub) -> None:
    insert_job(hub)
    hub.sql(
        "INSERT INTO hubs (worker_id, name, version, places, ticked_at, changed_modules)"
        " VALUES (gen_random_uuid(), 'vm-1:7', '1', 4, now(), '{webjobs.helper}')"
    )
    warning = "vm-1:7 runs code from before a change of webjobs.helper"
    assert warning in hub.page("/admin/")
    assert warning in hub.page("/admin/jobs/details/sync-1")
    hub.sql("UPDATE jobs SET handler_path = 'other.jobs:PlainJob'")
    assert warning not in hub.page("/admin/jobs/details/sync-1")
    hub.sql("UPDATE hubs SET stopped_at = now()")
    assert warning not in hub.page("/admin/")


def test_figures_of_hours_that_are_over_come_true_again(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    run_id = ran(hub, "SUCCESS", ago="5 h")
    assert ">100%</a>" in hub.page("/admin/")
    hub.sql("UPDATE job_logs SET status = 'FAILURE' WHERE id = $1", run_id)
    # Hours that are over are read in turn, not each time: a day of them in six questions, a week in 42.
    pages = [hub.page("/admin/") for _ in range(42)]
    assert "hub-m-failure" in pages[5]
    assert ">100%</a>" not in pages[-1] and ">0.0%</a>" in pages[-1]


def test_a_burst_is_not_counted_anew_for_each_page(hub: Hub) -> None:
    alive(hub)
    insert_job(hub)
    hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, finished_at)"
        " SELECT id, revision_id, 'api', 'SUCCESS', n::text, now() FROM jobs, generate_series(1, 10001) n"
    )
    hub.page("/admin/")  # the strips beside the first count of all are not shared yet
    assert told_of_week_and_day(hub.page("/admin/")) == {"10,001"}
    ran(hub, "SUCCESS", ago="1 s")
    assert told_of_week_and_day(hub.page("/admin/")) == {"10,001"}, (
        "a moment old; it is read behind the answer"
    )
    assert any(told_of_week_and_day(hub.page("/admin/")) == {"10,002"} for _ in range(1000))


def told_of_week_and_day(page: str) -> set[str]:
    """How many successes the columns of all Jobs and the strip of the one Job tell of."""
    labels = [label for label in re.findall(r'aria-label="([^"]*)"', page) if "Success " in label]
    assert len(labels) == 2, labels
    return {label.rsplit("Success ", 1)[1].split(" ")[0] for label in labels}


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_reading_of_another_hour_is_drawn_where_it_belongs(shift: int) -> None:
    now = datetime(2026, 1, 2, 10, tzinfo=UTC)
    hours = [now + (shift - 23 + at) * HOUR for at in range(24)]
    rows: Any = [
        {"job_id": "a", "hour": hour, "status": "SUCCESS", "runs": number}
        for number, hour in enumerate(hours)
    ]
    request: Any = SimpleNamespace(state=SimpleNamespace(language="en", zone=UTC))
    jobs: Any = [{"id": "a", "name": "A"}]
    [job] = _Drawer(request, now).strips(jobs, rows)
    told = re.findall(r"<title>(\d\d:\d\d)–\S+ Success (\d+)</title>", job["strip"])
    shown = [(f"{hour:%H:%M}", str(number)) for number, hour in enumerate(hours) if now - DAY < hour <= now]
    assert told == shown
