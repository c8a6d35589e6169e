"""Pure: which of a Job's due fire times run, which are skipped, and why (run-life rules 2 to 4)."""

from __future__ import annotations

from datetime import datetime, timedelta

from connecthub import cron
from connecthub.errors import ScheduleError
from connecthub.storage.schedule import Advance, DueJob, Fire

MISSED_AFTER = timedelta(minutes=2)  # first seen later than this, a fire time is missed; one late tick is not
MOST_MISSED = 100


def plan(job: DueJob, now: datetime) -> tuple[list[Fire], Advance]:
    """What the tick does with `job` at `now`, a database time."""
    try:
        after = job.schedule_from
        if job.next_run_at is not None:
            after = job.next_run_at - timedelta(microseconds=1)
        due = cron.span(job.cron_expr, job.timezone, after, now, keep=MOST_MISSED)
        following = cron.next_fire(job.cron_expr, job.timezone, max(now, job.schedule_from))
    except ScheduleError as error:
        return _broken(job, str(error))
    except Exception as error:  # whatever else one bad row can do, it fails alone
        return _broken(job, f"{type(error).__name__}: {error}")
    fires = _fires(job, due, now) if due.count else []
    queued = [fire.scheduled_for for fire in fires if fire.status == "QUEUED"]
    return fires, Advance(job.id, following, queued[-1] if queued else None)


def _broken(job: DueJob, error: str) -> tuple[list[Fire], Advance]:
    fire = Fire(job, job.next_run_at, "SKIPPED", "bad_schedule", {"detail": error})
    return [fire], Advance(job.id, None, None, error)


def _fires(job: DueJob, due: cron.Span, now: datetime) -> list[Fire]:
    on_time = [at for at in due.newest if now - at <= MISSED_AFTER]
    missed = [at for at in due.newest if now - at > MISSED_AFTER]
    made_up: list[datetime] = []
    if job.misfire == "all":
        made_up = missed
    elif job.misfire == "latest":
        on_time, older = on_time[-1:], on_time[:-1]
        missed = missed + older
        if not on_time and now - missed[-1] <= timedelta(seconds=job.misfire_window_s):
            on_time = [missed[-1]]
    runs = sorted({*made_up, *on_time})
    fires = _skipped_span(job, due, runs)
    fires += [Fire(job, at) for at in made_up]
    return fires + _under_overlap(job, on_time)


def _skipped_span(job: DueJob, due: cron.Span, runs: list[datetime]) -> list[Fire]:
    """One SKIPPED row, at the newest of the times that do not run, for all of them."""
    left = [at for at in due.newest if at not in set(runs)]
    count = due.count - len(runs)
    if not count or due.first is None:
        return []
    newest = left[-1] if left else _last_before(job, runs[0])
    missed = {"from": due.first.isoformat(), "to": newest.isoformat(), "count": count}
    return [Fire(job, newest, "SKIPPED", "missed", {"missed": missed})]


def _last_before(job: DueJob, at: datetime) -> datetime:
    """The newest fire time before `at`: all that were kept run, older ones were only counted."""
    reach = timedelta(days=1)
    while True:
        span = cron.span(job.cron_expr, job.timezone, at - reach, at - timedelta(microseconds=1), keep=1)
        if span.newest:
            return span.newest[-1]
        reach *= 4


def _under_overlap(job: DueJob, on_time: list[datetime]) -> list[Fire]:
    if job.overlap == "allow":
        return [Fire(job, at) for at in on_time]
    going, waits, fires = job.going, job.waits, []
    for at in on_time:
        blocked = waits if job.overlap == "queue" else going is not None
        if blocked:
            fires.append(Fire(job, at, "SKIPPED", "overlap", {"blocked_by": going} if going else {}))
        else:
            fires.append(Fire(job, at))
            if job.misfire != "all":  # "all" runs each of them, one after another
                going, waits = going or 0, True
    return fires
