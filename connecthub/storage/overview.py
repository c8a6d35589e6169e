"""What the overview reads: whether the scheduler lives, what fails, what runs, what comes next, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from connecthub.storage.hubs import IS_ALIVE
from connecthub.storage.jobs import Row
from connecthub.storage.queue import IS_FREE
from connecthub.storage.run_lists import EXCERPT

if TYPE_CHECKING:
    from connecthub.storage.database import Database

SHOWN = 20  # rows of failing and running Jobs
STRIPS = 50
WAITING_S = 60  # what is queued for longer has been kept waiting
_JUDGED = 1000  # runs of a Job that a streak is counted in

# usual: the median of the last 50 successes, from 5 on; slow: above max(twice their 95th percentile, usual + 30 s).
USUAL = """
LEFT JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS usual_s,
           greatest(2 * percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds),
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) + 30) AS slow_s
    FROM (SELECT greatest(extract(epoch FROM u.finished_at - u.started_at), 0)::float8 AS seconds
          FROM job_logs u
          WHERE u.job_id = l.job_id AND u.status = 'SUCCESS' AND u.started_at IS NOT NULL
          ORDER BY u.id DESC LIMIT 50) ended
    HAVING count(*) >= 5
) usual ON true
"""

_HOLDS_A_PLACE = """lease_expires_at IS NOT NULL
        AND (status = 'RUNNING' OR (status <> 'QUEUED' AND lease_expires_at > clock_timestamp()))"""

_STATE = f"""
SELECT clock_timestamp() AS now, s.paused_at, s.paused_by, h.*, r.taken, q.*, j.*
FROM hub_state s, (SELECT count(*) AS jobs, count(*) FILTER (WHERE enabled) AS enabled FROM jobs) j, (
    -- A hub that has just started has not had a minute for its first tick yet.
    SELECT max(coalesce(ticked_at, started_at)) AS ticked_at,
           coalesce(sum(places) FILTER (WHERE {IS_ALIVE}), 0)::int AS places
    FROM hubs
) h, (
    -- Not as hubs say with each beat: the page lists the runs beside.
    SELECT count(*)::int AS taken FROM job_logs
    WHERE {_HOLDS_A_PLACE} AND worker_id IN (SELECT worker_id FROM hubs WHERE {IS_ALIVE})
) r, (
    -- What waits for another run of its Job by the rules is not kept waiting by the scheduler. Which Jobs those are
    -- is looked up once, and only where something has waited for that long.
    SELECT count(*) AS queued, min(since) FILTER (
        WHERE since < clock_timestamp() - interval '{WAITING_S} seconds' AND {IS_FREE}) AS waiting_since
    FROM (SELECT *, coalesce(not_before, queued_at) AS since FROM job_logs
          WHERE status = 'QUEUED' AND coalesce(not_before <= clock_timestamp(), true)) d
) q
"""


async def read_state(db: Database) -> Row:
    """The hub as a whole: pause, last tick, places, queue, Jobs; one row.

    `waiting_since`: when the oldest run was queued that could have begun WAITING_S ago; None for none.
    """
    row = await db.fetchrow(_STATE)
    assert row is not None  # noqa: S101 - hub_state has one row
    return row


_JOBS_FAILING = """
FROM jobs j LEFT JOIN LATERAL (
    SELECT id, status FROM job_logs l
    WHERE l.job_id = j.id AND l.status IN ('SUCCESS', 'FAILURE', 'LOST') ORDER BY l.id DESC LIMIT 1
) bad ON true
WHERE j.enabled AND (j.schedule_error IS NOT NULL OR bad.status IN ('FAILURE', 'LOST'))
"""


async def count_failing(db: Database) -> int:
    """How many enabled Jobs failing_jobs() would tell of."""
    return int(await db.fetchval(f"SELECT count(*) {_JOBS_FAILING}"))


_FAILING = f"""
WITH failing AS (
    SELECT j.id AS job_id, j.name, j.cron_expr, j.timezone, j.schedule_error, bad.id, bad.status {_JOBS_FAILING}
), shown AS (SELECT *, count(*) OVER () AS total FROM failing ORDER BY id DESC NULLS LAST LIMIT {SHOWN})
SELECT s.job_id, s.name, s.cron_expr, s.timezone, s.schedule_error, s.total, l.id, l.status, l.reason, l.finished_at,
       {EXCERPT}, streak.*, good.finished_at AS last_success
FROM shown s
LEFT JOIN job_logs l ON l.id = s.id AND s.status <> 'SUCCESS'
LEFT JOIN LATERAL (
    SELECT g.id, g.finished_at FROM (
        SELECT id, finished_at, status FROM job_logs g WHERE g.job_id = s.job_id AND g.id < l.id
        ORDER BY g.id DESC LIMIT {_JUDGED}) g
    WHERE g.status = 'SUCCESS' ORDER BY g.id DESC LIMIT 1
) good ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS streak, min(coalesce(started_at, queued_at)) AS since FROM (
        SELECT started_at, queued_at FROM job_logs b
        WHERE b.job_id = s.job_id AND b.id <= l.id AND b.id > coalesce(good.id, 0) AND b.status IN ('FAILURE', 'LOST')
        ORDER BY b.id DESC LIMIT {_JUDGED}) b
) streak ON true
ORDER BY l.id DESC NULLS LAST, s.name
"""


async def failing_jobs(db: Database) -> list[Row]:
    """Enabled Jobs whose newest judged run ended badly or whose schedule is broken, latest first; `total` in all."""
    return await db.fetch(_FAILING)


# First which rows those are, by the index of what goes: to a plan that needs them in the order of their ids, going
# through the whole table in that order looks cheapest while there are no statistics.
_RUNNING = f"""
WITH going AS MATERIALIZED (
    SELECT id FROM job_logs WHERE {_HOLDS_A_PLACE}
)
SELECT l.id, l.job_id, j.name, l.status, l.started_at, l.queued_at, l.finished_at, l.progress,
       l.cancel_requested_at, l.trigger, r.timeout_s, usual.usual_s, usual.slow_s,
       extract(epoch FROM clock_timestamp() - coalesce(l.started_at, l.queued_at))::float8 AS elapsed_s,
       (SELECT count(*) FROM going) AS total
FROM (SELECT id FROM going ORDER BY id LIMIT {SHOWN}) g JOIN job_logs l ON l.id = g.id
JOIN job_revisions r ON r.id = l.revision_id LEFT JOIN jobs j ON j.id = l.job_id
{USUAL}
ORDER BY l.id
"""


async def running_now(db: Database) -> list[Row]:
    """Runs that hold a place: RUNNING ones, and ended ones whose code has not returned; oldest first."""
    return await db.fetch(_RUNNING)


_NEXT = (
    "(SELECT id, name, timezone, next_run_at, cron_expr, schedule_from FROM jobs"
    " WHERE enabled AND schedule_error IS NULL AND next_run_at IS {} ORDER BY next_run_at, name LIMIT $1)"
)


async def up_next(db: Database, count: int) -> list[Row]:
    """The Jobs that fire next, and as many whose next_run_at the tick has not written yet."""
    return await db.fetch(f"{_NEXT.format('NOT NULL')} UNION ALL {_NEXT.format('NULL')}", count)


# The bounds are values and not computed from clock_timestamp(): only then does the index find the hour.
_OF_AN_HOUR = "queued_at >= h.hour AND queued_at < h.hour + interval '1 hour'"


async def runs_per_hour(db: Database, hours: Sequence[datetime]) -> list[Row]:
    """How many runs of each status were queued in each of these hours: hour, status, runs."""
    return await db.fetch(
        "SELECT h.hour, c.* FROM unnest($1::timestamptz[]) AS h(hour), LATERAL ("
        f" SELECT status, count(*) AS runs FROM job_logs WHERE {_OF_AN_HOUR} GROUP BY status) c",
        list(hours),
    )


async def strip_jobs(db: Database, first: Sequence[str], everything: bool) -> list[Row]:
    """Jobs for the strips: `first` ones (those that fail), then by name; STRIPS of them, or 500."""
    return await db.fetch(
        "SELECT id, name, enabled FROM jobs ORDER BY (id = ANY($1::text[])) DESC, enabled DESC, lower(name), id LIMIT $2",
        list(first),
        500 if everything else STRIPS,
    )


async def strips(db: Database, job_ids: Sequence[str], hours: Sequence[datetime]) -> list[Row]:
    """How many runs of each status each of these Jobs had in each of these hours: job_id, hour, status, runs."""
    return await db.fetch(
        "SELECT h.hour, c.* FROM unnest($2::timestamptz[]) AS h(hour), LATERAL ("
        " SELECT job_id, status, count(*) AS runs FROM job_logs"
        f" WHERE {_OF_AN_HOUR} AND job_id = ANY($1::text[]) GROUP BY job_id, status) c",
        list(job_ids),
        list(hours),
    )
