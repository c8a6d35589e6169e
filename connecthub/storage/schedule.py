"""The SQL of the tick: which Jobs are due, and one write of what the tick decided."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from connecthub.storage.schema import is_known, schema_revisions

if TYPE_CHECKING:
    from connecthub.storage.database import Connected


@dataclass(frozen=True)
class DueJobs:
    """Jobs that are due, locked by this transaction, and alike in all that decides on their fire times.

    `ids`, `revision_ids` and `priorities` are theirs, one of each for a Job. Where a run of a Job is going it
    is alone: `going` is the oldest of these runs, `waits` whether a scheduled one is queued and due.
    """

    ids: list[str]
    revision_ids: list[int]
    priorities: list[int]
    cron_expr: str
    timezone: str
    misfire: str
    misfire_window_s: int
    overlap: str
    next_run_at: datetime | None
    schedule_from: datetime | None  # None where it does not matter: it is past, and a fire time is known
    going: int | None = None
    waits: bool = False


@dataclass(frozen=True)
class Fire:
    """A row that the tick inserts for each of `jobs`: QUEUED, or SKIPPED with its reason."""

    jobs: DueJobs
    scheduled_for: datetime | None
    status: str = "QUEUED"
    reason: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def job_ids(self) -> list[str]:
        """Of whom this is a fire time."""
        return self.jobs.ids


@dataclass(frozen=True)
class Advance:
    """How Jobs go on: their next fire time, or what is wrong with their schedule."""

    job_ids: list[str]
    next_run_at: datetime | None
    last_run_at: datetime | None
    schedule_error: str | None = None


_MAY_TICK = f"(SELECT paused_at IS NULL AND {is_known('$2')} FROM hub_state)"
_IS_DUE = "enabled AND schedule_error IS NULL AND coalesce(next_run_at, '-infinity') <= {}"
# NO KEY UPDATE keeps other ticks and saves out, and lets "run now" pass. Locked rows are another's work.
_DUE = f"""
WITH due AS MATERIALIZED (
    SELECT * FROM jobs
    WHERE {_IS_DUE.format("$1")} AND {_MAY_TICK}
    ORDER BY coalesce(next_run_at, '-infinity')
    LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT array_agg(id) AS ids, array_agg(revision_id) AS revision_ids, array_agg(priority) AS priorities,
       cron_expr, timezone, misfire, misfire_window_s, overlap, next_run_at, matters AS schedule_from
FROM (SELECT *, CASE WHEN next_run_at IS NULL OR schedule_from > $1 THEN schedule_from END AS matters FROM due) d
GROUP BY cron_expr, timezone, misfire, misfire_window_s, overlap, next_run_at, matters
ORDER BY next_run_at NULLS FIRST
"""
_GOING = """
SELECT job_id, min(id) AS going, bool_or(status = 'QUEUED' AND trigger = 'schedule') AS waits
FROM job_logs
WHERE job_id = ANY($1::text[]) AND (status = 'QUEUED' OR lease_expires_at IS NOT NULL)
  AND is_going(status, not_before, lease_expires_at)
GROUP BY job_id
"""


class Look(NamedTuple):
    """The database's clock, and whether a Job is due by it, locked by another session or not.

    Nothing is due while a person has paused all hubs, or where the schema is of a newer version.
    """

    moment: datetime
    is_due: bool


_LOOK = f"""
SELECT moment, {_MAY_TICK} AND EXISTS (SELECT FROM jobs WHERE {_IS_DUE.format("moment")}) AS is_due
FROM (SELECT coalesce($1, clock_timestamp()) AS moment) clock
"""


async def look(connection: Connected, moment: datetime | None = None) -> Look:
    """What a tick sees at first, or at the `moment` that it has seen before."""
    [row] = await connection.fetch(_LOOK, moment, schema_revisions())
    return Look(*row)


async def due_jobs(connection: Connected, moment: datetime, limit: int) -> list[DueJobs]:
    """Lock at most `limit` Jobs that are due at `moment`, longest due first; none while no tick may be."""
    due = [DueJobs(**dict(row)) for row in await connection.fetch(_DUE, moment, schema_revisions(), limit)]
    asked = [job_id for jobs in due if jobs.overlap != "allow" for job_id in jobs.ids]
    found = await connection.fetch(_GOING, asked) if asked else []  # a later look: the locks are taken
    going = {row["job_id"]: {"going": row["going"], "waits": row["waits"]} for row in found}
    return [part for jobs in due for part in _apart(jobs, going)] if going else due


def _apart(jobs: DueJobs, going: dict[str, dict[str, Any]]) -> Iterator[DueJobs]:
    """Those of `jobs` that are not `going` together, each other one alone."""
    each = list(zip(jobs.ids, jobs.revision_ids, jobs.priorities, strict=True))
    if free := [job for job in each if job[0] not in going]:
        ids, revision_ids, priorities = map(list, zip(*free, strict=True))
        yield replace(jobs, ids=ids, revision_ids=revision_ids, priorities=priorities)
    for job_id, revision_id, priority in each:
        if job_id in going:
            alone = replace(jobs, ids=[job_id], revision_ids=[revision_id], priorities=[priority])
            yield replace(alone, **going[job_id])


# What all Jobs of a fire time have in common comes once: its key, its meta. In order: by rule 6 the missed fire times
# of a Job run by their ids.
_INSERT = """
WITH fires AS MATERIALIZED (
    SELECT number, status, reason, scheduled_for, fire_key('', scheduled_for) AS key, meta::jsonb AS meta
    FROM unnest($5::text[], $6::text[], $7::timestamptz[], $8::text[])
         WITH ORDINALITY AS f(status, reason, scheduled_for, meta, number)
)
INSERT INTO job_logs (job_id, revision_id, trigger, status, reason, scheduled_for, idempotency_key, priority, meta,
                      finished_at)
SELECT j.job_id, j.revision_id, 'schedule', f.status, f.reason, f.scheduled_for, j.job_id || f.key, j.priority, f.meta,
       CASE WHEN f.status = 'SKIPPED' THEN clock_timestamp() END
FROM unnest($1::text[], $2::bigint[], $3::int[], $4::int[]) AS j(job_id, revision_id, priority, number)
JOIN fires f USING (number)
ORDER BY number
ON CONFLICT DO NOTHING
"""
# Rule 4: a newer fire time cancels a delayed attempt of an older one.
_SUPERSEDE = """
UPDATE job_logs SET status = 'CANCELLED', reason = 'superseded', finished_at = clock_timestamp()
WHERE job_id = ANY($1::text[]) AND status = 'QUEUED' AND trigger = 'schedule' AND attempt > 1
  AND not_before > clock_timestamp()
"""
_ADVANCE = """
UPDATE jobs j SET next_run_at = a.next_run_at, last_run_at = coalesce(a.last_run_at, j.last_run_at),
                  schedule_error = a.schedule_error
FROM unnest($1::text[], $2::int[]) AS d(id, number)
JOIN unnest($3::timestamptz[], $4::timestamptz[], $5::text[])
     WITH ORDINALITY AS a(next_run_at, last_run_at, schedule_error, number) USING (number)
WHERE j.id = d.id
"""


# Plans made on a table that was vacuumed while empty read all of it; autovacuum takes up to a minute to notice.
_IS_UNHEARD_OF = "SELECT reltuples < $1::bigint FROM pg_class WHERE oid = 'job_logs'::regclass"
_MANY = 200  # of fewer it does not matter


async def store_tick(connection: Connected, fires: Sequence[Fire], advances: Sequence[Advance]) -> int:
    """Insert the runs and move the Jobs on; how many rows were new (fewer than `fires` should never be)."""
    superseding = [
        job_id
        for fire in fires
        if fire.status == "QUEUED" and fire.jobs.overlap != "allow"
        for job_id in fire.job_ids
    ]
    if superseding:
        await connection.execute(_SUPERSEDE, superseding)
    inserted = 0
    if fires:
        done = await connection.execute(
            _INSERT,
            [job_id for fire in fires for job_id in fire.job_ids],
            [revision_id for fire in fires for revision_id in fire.jobs.revision_ids],
            [priority for fire in fires for priority in fire.jobs.priorities],
            _numbers(fires),
            [fire.status for fire in fires],
            [fire.reason for fire in fires],
            [fire.scheduled_for for fire in fires],
            [json.dumps(fire.meta) for fire in fires],
        )
        inserted = int(done.rsplit(" ", 1)[1])
        if inserted >= _MANY and await connection.fetchval(_IS_UNHEARD_OF, inserted):
            await connection.execute("ANALYZE job_logs")
    await connection.execute(
        _ADVANCE,
        [job_id for advance in advances for job_id in advance.job_ids],
        _numbers(advances),
        [advance.next_run_at for advance in advances],
        [advance.last_run_at for advance in advances],
        [advance.schedule_error for advance in advances],
    )
    return inserted


def _numbers(parts: Sequence[Fire | Advance]) -> list[int]:
    """For each Job the number of its part, which counts from 1."""
    return [number for number, part in enumerate(parts, 1) for _ in part.job_ids]
