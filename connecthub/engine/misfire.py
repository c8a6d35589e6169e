"""Pure: which of a Job's due fire times run, which are skipped, and why (run-life rules 2 to 4)."""

from __future__ import annotations

from datetime import datetime, timedelta

from connecthub import cron
from connecthub.errors import ScheduleError
from connecthub.storage.schedule import Advance, DueJobs, Fire

MISSED_AFTER = timedelta(minutes=2)  # first seen later than this, a fire time is missed; one late tick is not
MOST_MISSED = 100


def plan(jobs: DueJobs, now: datetime) -> tuple[list[Fire], Advance]:
    """What the tick does with `jobs` at `now`, a database time."""
    counts_from = jobs.schedule_from or now
    try:
        after = counts_from if jobs.next_run_at is None else jobs.next_run_at - timedelta(microseconds=1)
        due = cron.span(jobs.cron_expr, jobs.timezone, after, now, keep=MOST_MISSED)
        following = cron.next_fire(jobs.cron_expr, jobs.timezone, max(now, counts_from))
    except ScheduleError as error:
        return _broken(jobs, str(error))
    except Exception as error:  # whatever else one bad row can do, it fails alone
        return _broken(jobs, f"{type(error).__name__}: {error}")
    fires = _fires(jobs, due, now) if due.count else []
    queued = [fire.scheduled_for for fire in fires if fire.status == "QUEUED"]
    return fires, Advance(jobs.ids, following, queued[-1] if queued else None)


def _broken(jobs: DueJobs, error: str) -> tuple[list[Fire], Advance]:
    fire = Fire(jobs, jobs.next_run_at, "SKIPPED", "bad_schedule", {"detail": error})
    return [fire], Advance(jobs.ids, None, None, error)


def _fires(jobs: DueJobs, due: cron.Span, now: datetime) -> list[Fire]:
    on_time = [at for at in due.newest if now - at <= MISSED_AFTER]
    missed = [at for at in due.newest if now - at > MISSED_AFTER]
    made_up: list[datetime] = []
    if jobs.misfire == "all":
        made_up = missed
    elif jobs.misfire == "latest":
        on_time, older = on_time[-1:], on_time[:-1]
        missed = missed + older
        if not on_time and now - missed[-1] <= timedelta(seconds=jobs.misfire_window_s):
            on_time = [missed[-1]]
    runs = sorted({*made_up, *on_time})
    fires = _skipped_span(jobs, due, runs)
    fires += [Fire(jobs, at) for at in made_up]
    return fires + _under_overlap(jobs, on_time)


def _skipped_span(jobs: DueJobs, due: cron.Span, runs: list[datetime]) -> list[Fire]:
    """One SKIPPED row, at the newest of the times that do not run, for all of them."""
    left = [at for at in due.newest if at not in set(runs)]
    count = due.count - len(runs)
    if not count or due.first is None:
        return []
    newest = left[-1] if left else _last_before(jobs, runs[0])
    missed = {"from": due.first.isoformat(), "to": newest.isoformat(), "count": count}
    return [Fire(jobs, newest, "SKIPPED", "missed", {"missed": missed})]


def _last_before(jobs: DueJobs, at: datetime) -> datetime:
    """The newest fire time before `at`: all that were kept run, older ones were only counted."""
    reach = timedelta(days=1)
    while True:
        span = cron.span(jobs.cron_expr, jobs.timezone, at - reach, at - timedelta(microseconds=1), keep=1)
        if span.newest:
            return span.newest[-1]
        reach *= 4


def _under_overlap(jobs: DueJobs, on_time: list[datetime]) -> list[Fire]:
    if jobs.overlap == "allow":
        return [Fire(jobs, at) for at in on_time]
    going, waits, fires = jobs.going, jobs.waits, []
    for at in on_time:
        blocked = waits if jobs.overlap == "queue" else going is not None
        if blocked:
            fires.append(Fire(jobs, at, "SKIPPED", "overlap", {"blocked_by": going} if going else {}))
        else:
            fires.append(Fire(jobs, at))
            if jobs.misfire != "all":  # "all" runs each of them, one after another
                going, waits = going or 0, True
    return fires
