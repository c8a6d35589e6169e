"""The SQL of the tick: which Jobs are due, and one write of what the tick decided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from connecthub.storage.schema import is_known, schema_revisions

if TYPE_CHECKING:
    from connecthub.storage.database import Connected


@dataclass(frozen=True)
class DueJob:
    """A Job that is due, locked by this transaction, with what decides on its overlap."""

    id: str
    cron_expr: str
    timezone: str
    misfire: str
    misfire_window_s: int
    overlap: str
    priority: int
    revision_id: int
    next_run_at: datetime | None
    schedule_from: datetime
    going: int | None = None  # the oldest run of it that is going
    waits: bool = False  # a scheduled run of it is queued and due


@dataclass(frozen=True)
class Fire:
    """A row that the tick inserts: QUEUED, or SKIPPED with its reason."""

    job: DueJob
    scheduled_for: datetime | None
    status: str = "QUEUED"
    reason: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Advance:
    """How a Job goes on: its next fire time, or what is wrong with its schedule."""

    job_id: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    schedule_error: str | None = None


# NO KEY UPDATE keeps other ticks and saves out, and lets "run now" pass. Locked rows are another's work.
_DUE = """
SELECT id, cron_expr, timezone, misfire, misfire_window_s, overlap, priority, revision_id, next_run_at,
       schedule_from
FROM jobs
WHERE enabled AND schedule_error IS NULL AND coalesce(next_run_at, '-infinity') <= $1
ORDER BY coalesce(next_run_at, '-infinity')
LIMIT $2
FOR NO KEY UPDATE SKIP LOCKED
"""
_GOING = """
SELECT job_id, min(id) AS going, bool_or(status = 'QUEUED' AND trigger = 'schedule') AS waits
FROM job_logs
WHERE job_id = ANY($1::text[]) AND (status = 'QUEUED' OR lease_expires_at IS NOT NULL)
  AND is_going(status, not_before, lease_expires_at)
GROUP BY job_id
"""


async def now(connection: Connected) -> datetime:
    """The database's clock."""
    moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return moment


_MAY_TICK = f"SELECT paused_at IS NULL AND {is_known('$1')} FROM hub_state"


async def may_tick(connection: Connected) -> bool:
    """False while a person has paused all hubs, or where the schema is of a newer version."""
    return bool(await connection.fetchval(_MAY_TICK, schema_revisions()))


async def due_jobs(connection: Connected, moment: datetime, limit: int) -> list[DueJob]:
    """Lock at most `limit` Jobs that are due at `moment`, longest due first."""
    rows = await connection.fetch(_DUE, moment, limit)
    asked = [row["id"] for row in rows if row["overlap"] != "allow"]
    found = await connection.fetch(_GOING, asked) if asked else []
    going = {row["job_id"]: {"going": row["going"], "waits": row["waits"]} for row in found}
    return [DueJob(**dict(row), **going.get(row["id"], {})) for row in rows]


_INSERT = """
INSERT INTO job_logs (job_id, revision_id, trigger, status, reason, scheduled_for, idempotency_key, priority, meta,
                      finished_at)
SELECT f.job_id, f.revision_id, 'schedule', f.status, f.reason, f.scheduled_for,
       fire_key(f.job_id, f.scheduled_for), f.priority, f.meta::jsonb,
       CASE WHEN f.status = 'SKIPPED' THEN clock_timestamp() END
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::int[], $7::text[])
     AS f(job_id, revision_id, status, reason, scheduled_for, priority, meta)
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
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::text[])
     AS a(id, next_run_at, last_run_at, schedule_error)
WHERE j.id = a.id
"""


# Plans made on a table that was vacuumed while empty read all of it; autovacuum takes up to a minute to notice.
_IS_UNHEARD_OF = "SELECT reltuples < $1::bigint FROM pg_class WHERE oid = 'job_logs'::regclass"
_MANY = 100  # of fewer it does not matter


async def store_tick(connection: Connected, fires: Sequence[Fire], advances: Sequence[Advance]) -> int:
    """Insert the runs and move the Jobs on; how many rows were new (fewer than `fires` should never be)."""
    superseding = [fire.job.id for fire in fires if fire.status == "QUEUED" and fire.job.overlap != "allow"]
    if superseding:
        await connection.execute(_SUPERSEDE, superseding)
    inserted = 0
    if fires:
        done = await connection.execute(
            _INSERT,
            [fire.job.id for fire in fires],
            [fire.job.revision_id for fire in fires],
            [fire.status for fire in fires],
            [fire.reason for fire in fires],
            [fire.scheduled_for for fire in fires],
            [fire.job.priority for fire in fires],
            [json.dumps(fire.meta) for fire in fires],
        )
        inserted = int(done.rsplit(" ", 1)[1])
        if inserted >= _MANY and await connection.fetchval(_IS_UNHEARD_OF, inserted):
            await connection.execute("ANALYZE job_logs")
    await connection.execute(
        _ADVANCE,
        [advance.job_id for advance in advances],
        [advance.next_run_at for advance in advances],
        [advance.last_run_at for advance in advances],
        [advance.schedule_error for advance in advances],
    )
    return inserted


async def any_due(connection: Connected, moment: datetime) -> bool:
    """Whether a Job is due at `moment`, locked by another session or not."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM jobs WHERE enabled AND schedule_error IS NULL"
            " AND coalesce(next_run_at, '-infinity') <= $1)",
            moment,
        )
    )
