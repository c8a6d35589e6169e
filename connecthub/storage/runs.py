"""All SQL that decides who owns a run: claim, lease, end. `worker_id` is the hub; times are the database's.

Every write to a claimed run says `id AND worker_id AND status` and looks at what it hit, so that repeating it
after a lost answer is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from uuid import UUID

from connecthub.storage.schema import is_known, schema_revisions

if TYPE_CHECKING:
    from connecthub.storage.database import Connected, Database

Row = TypeVar("Row")
STATEMENT_CHARS = 1 << 19  # of texts in one statement: of each several copies are made on its way


class Claim(NamedTuple):
    """A run that this hub owns. `claimed_at` is the database's clock, `due_at` when it should have begun."""

    id: int
    job_id: str
    revision_id: int
    trigger: str
    scheduled_for: datetime | None
    attempt: int
    idempotency_key: str
    params: str | None
    cancel_requested: bool
    due_at: datetime
    claimed_at: datetime
    priority: int = 0


class Ending(NamedTuple):
    """The end of one run, ready to be stored. JSON fields are text.

    `returned`: the plugin's code is over and its place free. `retry_delay_s`: seconds until the next attempt,
    None where the outcome allows none.
    """

    id: int
    status: str
    reason: str | None = None
    message: str | None = None
    traceback: str | None = None
    run_log: str | None = None
    result: str | None = None
    progress: str | None = None
    meta: str = "{}"
    started_at: datetime | None = None
    returned: bool = True
    retry_delay_s: int | None = None


@dataclass
class Beat:
    """What the beat found: claims whose answer was lost, and runs that a person wants to end."""

    lost_claims: list[Claim] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)


_CLAIMED = """l.id, l.job_id, l.revision_id, l.trigger, l.scheduled_for, l.attempt, l.idempotency_key, l.params,
    l.cancel_requested_at IS NOT NULL AS cancel_requested,
    coalesce(l.not_before, CASE l.trigger WHEN 'schedule' THEN l.scheduled_for END, l.queued_at) AS due_at,
    clock_timestamp() AS claimed_at, l.priority"""

# The queue's index must not fit: planned while the queue is empty, to read all of it would look cheapest.
_IS_QUEUED = "n.status || '' = 'QUEUED'"

# Rule 6. The lower-id clause keeps two concurrent claims of one Job apart without a lock.
_READY = f"""
WITH ready AS MATERIALIZED (
    SELECT q.id FROM job_logs q
    WHERE q.status = 'QUEUED' AND q.id > $5 {{alike}}
      AND (SELECT paused_at IS NULL FROM hub_state)
      AND {is_known("$4")}
      AND (q.not_before IS NULL OR q.not_before <= clock_timestamp())
      AND (q.attempt = 1 OR NOT EXISTS (
            SELECT FROM job_logs c
            WHERE c.idempotency_key = q.idempotency_key AND c.id < q.id
              AND is_going(c.status, c.not_before, c.lease_expires_at)))
      AND (q.trigger <> 'schedule'
           OR (SELECT j.overlap = 'allow' FROM jobs j WHERE j.id = q.job_id)
           OR NOT EXISTS (
            SELECT FROM job_logs o
            WHERE o.job_id = q.job_id AND o.id <> q.id
              AND (o.status = 'QUEUED' OR o.lease_expires_at IS NOT NULL)
              AND CASE WHEN o.status = 'QUEUED' THEN o.id < q.id AND o.trigger = 'schedule' ELSE true END
              AND is_going(o.status, o.not_before, o.lease_expires_at)))
    ORDER BY q.priority DESC, (q.trigger = 'schedule'), q.id
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE job_logs l
SET status = 'RUNNING', worker_id = $1, lease_expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE l.id = ANY(ARRAY(SELECT id FROM ready))  -- by id alone: their locks keep them QUEUED
RETURNING {_CLAIMED}
"""
_CLAIM = _READY.format(alike="")
# Written as the queue's index has it: to begin behind a run, a scan needs all of the order before its id.
_CLAIM_BEHIND = {
    is_scheduled: _READY.format(alike=f"AND q.priority = $6 AND {alike}")
    for is_scheduled, alike in [(True, "q.trigger = 'schedule'"), (False, "NOT (q.trigger = 'schedule')")]
}


async def claim(
    db: Database, worker_id: UUID, lease_s: float, places: int, above: int = 0, behind: Claim | None = None
) -> list[Claim]:
    """Take at most `places` queued runs, in order of priority, people's runs, id.

    Only those with ids `above` one; or only those `behind` a run, of its priority and scheduled as it is or not.
    None while a person has paused all hubs, or where the schema is of a newer version.
    """
    if behind is None:
        rows = await db.fetch(_CLAIM, worker_id, lease_s, places, schema_revisions(), above)
    else:
        statement = _CLAIM_BEHIND[behind.trigger == "schedule"]
        place = behind.id, behind.priority
        rows = await db.fetch(statement, worker_id, lease_s, places, schema_revisions(), *place)
    claims = [Claim._make(row) for row in rows]
    claims.sort(key=lambda claim: (-claim.priority, claim.trigger == "schedule", claim.id))
    return claims


# Rule 13: the part of "is another attempt due" that only the database knows; e is the ended run.
_ANOTHER_IS_DUE = """
    e.cancel_requested_at IS NULL
    AND (e.trigger <> 'schedule' OR EXISTS (SELECT FROM jobs j WHERE j.id = e.job_id AND j.enabled))
    AND NOT EXISTS (SELECT FROM job_logs s
                    WHERE s.idempotency_key = e.idempotency_key AND s.status = 'SUCCESS')
    AND (e.trigger <> 'schedule'
         OR (SELECT j.overlap = 'allow' FROM jobs j WHERE j.id = e.job_id)
         OR NOT EXISTS (SELECT FROM job_logs n
                        WHERE n.job_id = e.job_id AND n.trigger = 'schedule' AND n.attempt = 1
                          AND n.scheduled_for > e.scheduled_for AND n.status <> 'SKIPPED'))
"""
_ATTEMPT_COLUMNS = """job_id, revision_id, trigger, status, scheduled_for, attempt, retry_of, idempotency_key,
    priority, params, not_before, triggered_by"""
_NEXT_ATTEMPT = f"""
    INSERT INTO job_logs ({_ATTEMPT_COLUMNS})
    SELECT e.job_id, e.revision_id, e.trigger, 'QUEUED', e.scheduled_for, e.attempt + 1, e.id, e.idempotency_key,
           e.priority, e.params, clock_timestamp() + make_interval(secs => e.retry_delay_s), e.triggered_by
    FROM due e
    ON CONFLICT DO NOTHING
"""
_ENDED = """l.id, l.job_id, l.revision_id, l.trigger, l.scheduled_for, l.attempt, l.idempotency_key, l.priority,
    l.params, l.triggered_by, l.cancel_requested_at"""

_END = f"""
WITH known AS MATERIALIZED (  -- which a reaper had met before this statement: none, almost always
    SELECT id, status FROM job_logs
    WHERE id = ANY($2::bigint[])
      AND (status = 'LOST' OR status = 'SUCCESS' AND worker_id = $1 AND meta ? 'lease_expired_at')
), ended AS (
    UPDATE job_logs l
    SET status = e.status, reason = e.reason, message = e.message, traceback = e.traceback, run_log = e.run_log,
        result = e.result::jsonb, progress = e.progress::jsonb, meta = l.meta || e.meta::jsonb,
        started_at = e.started_at, finished_at = clock_timestamp(),
        lease_expires_at = CASE WHEN e.returned THEN NULL ELSE l.lease_expires_at END
    FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                $10::text[], $11::timestamptz[], $12::boolean[], $13::int[])
         AS e(id, status, reason, message, traceback, run_log, result, progress, meta, started_at, returned,
              retry_delay_s)
    WHERE l.id = e.id AND l.worker_id = $1 AND l.status IN ('RUNNING', 'LOST')
    RETURNING {_ENDED}, l.meta, e.retry_delay_s
), due AS (
    SELECT * FROM ended e WHERE e.retry_delay_s IS NOT NULL AND {_ANOTHER_IS_DUE}
), next AS ({_NEXT_ATTEMPT} RETURNING retry_of
), came_back AS MATERIALIZED (
    SELECT e.id, e.idempotency_key, e.attempt FROM ended e JOIN known ON known.id = e.id
    WHERE NOT EXISTS (SELECT FROM due WHERE due.id = e.id)
), superseded AS (
    -- Rule 14: an owner that came back makes later attempts of its chain needless.
    UPDATE job_logs n SET status = 'CANCELLED', reason = 'superseded', finished_at = clock_timestamp()
    FROM came_back e
    WHERE n.idempotency_key = e.idempotency_key AND n.id > e.id AND n.attempt > e.attempt AND {_IS_QUEUED}
)
-- Those that a reaper turned LOST while this statement waited for its lock: it sees no attempt of that reaper. And
-- those of them that are stored again, as the answer was lost: what comes after this statement was lost with it.
SELECT e.id FROM ended e
WHERE e.meta ? 'lease_expired_at' AND NOT EXISTS (SELECT FROM known WHERE known.id = e.id)
  AND NOT EXISTS (SELECT FROM due WHERE due.id = e.id)
UNION ALL SELECT id FROM known WHERE status = 'SUCCESS'
"""
# Rule 13: a tick or a save that is under way is waited for, and none begins before the next attempt is to be seen.
_LOCK_JOBS = "SELECT FROM jobs WHERE id = ANY(ARRAY({})) ORDER BY id FOR SHARE"
_LOCK_ENDED = _LOCK_JOBS.format("SELECT job_id FROM job_logs WHERE id = ANY($1::bigint[])")
_SUPERSEDE = f"""
UPDATE job_logs n SET status = 'CANCELLED', reason = 'superseded', finished_at = clock_timestamp()
FROM job_logs e
WHERE e.id = ANY($1::bigint[]) AND n.idempotency_key = e.idempotency_key AND n.id > e.id AND n.attempt > e.attempt
  AND {_IS_QUEUED}
"""


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Statements that lock many runs do so by id, all of them, or two would wait for each other."""
    return sorted(rows, key=attrgetter("id"))


async def store_endings(db: Database, worker_id: UUID, endings: Sequence[Ending]) -> None:
    """Store ends of runs of `worker_id`, and queue the next attempts that are due. Harmless when repeated."""
    retried = [ending.id for ending in endings if ending.retry_delay_s is not None]
    if not retried:
        return await _end(db, worker_id, endings)
    async with db.transaction() as connection:
        await connection.fetch(_LOCK_ENDED, retried)
        await _end(connection, worker_id, endings)


async def _end(db: Database | Connected, worker_id: UUID, endings: Sequence[Ending]) -> None:
    columns = zip(*in_order(endings), strict=True)
    # Of an array each element costs, of one that is not there none does: unnest() fills up with NULL.
    told = [None if column.count(None) == len(column) else column for column in columns]
    raced = await db.fetch(_END, worker_id, *told)
    if raced:
        await db.execute(_SUPERSEDE, [row["id"] for row in raced])


# Rule 10: what holds a place or whose end is not stored is renewed, LOST and ended rows included.
_BEAT = """
UPDATE job_logs SET lease_expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE id = ANY($3::bigint[]) AND worker_id = $1
  AND lease_expires_at IS NOT NULL  -- or a beat on its way would give a lease to what has just been given up
RETURNING id, status = 'RUNNING' AS running, cancel_requested_at IS NOT NULL AS cancelled
"""
_LOST_CLAIMS = f"""
UPDATE job_logs l SET lease_expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE l.worker_id = $1 AND l.status = 'RUNNING' AND l.id <> ALL($3::bigint[])
RETURNING {_CLAIMED}
"""


async def beat(
    db: Database, worker_id: UUID, lease_s: float, held: Iterable[int], known: Iterable[int]
) -> Beat:
    """Renew the leases of `held`; rule 8: RUNNING rows of this hub that are not `known` count as claimed."""
    async with db.connection() as connection, connection.transaction():
        rows = await connection.fetch(_BEAT, worker_id, lease_s, list(held))
        unknown = await connection.fetch(_LOST_CLAIMS, worker_id, lease_s, list(known))
    return Beat(
        lost_claims=[Claim._make(row) for row in unknown],
        running={row["id"] for row in rows if row["running"]},
        cancelled={row["id"] for row in rows if row["cancelled"]},
    )


# As it is: the index of what goes must not fit.
_IS_LOST = "r.id = l.revision_id AND l.status = 'RUNNING' AND coalesce(l.lease_expires_at <= clock_timestamp(), false)"
_LOCK_LOST = _LOCK_JOBS.format(
    f"SELECT l.job_id FROM job_logs l, job_revisions r WHERE {_IS_LOST} AND r.rerun_lost"
)
# Rule 11, in one statement that repeats the lease condition; a lost run uses up an attempt.
_REAP = f"""
WITH ended AS (
    UPDATE job_logs l SET status = 'LOST', finished_at = clock_timestamp(),
        meta = l.meta || jsonb_build_object('lease_expired_at', l.lease_expires_at)
    FROM job_revisions r
    WHERE {_IS_LOST} AND {is_known("$1")}
    RETURNING {_ENDED},
        CASE WHEN r.rerun_lost AND l.attempt < r.max_attempts
             THEN coalesce(r.retry_delays[least(l.attempt, cardinality(r.retry_delays))], 0) END AS retry_delay_s
), due AS (
    SELECT * FROM ended e WHERE e.retry_delay_s IS NOT NULL AND {_ANOTHER_IS_DUE}
), next AS ({_NEXT_ATTEMPT} RETURNING id)
SELECT id FROM ended
"""


async def reap(connection: Connected) -> list[int]:
    """In a transaction: make RUNNING rows whose lease has expired LOST; their ids. None under a newer schema."""
    await connection.fetch(_LOCK_LOST)
    return [row["id"] for row in await connection.fetch(_REAP, schema_revisions())]


_RELEASE = """
UPDATE job_logs SET
    status = CASE WHEN cancel_requested_at IS NULL THEN 'QUEUED' ELSE 'CANCELLED' END,
    reason = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE 'cancelled' END,
    finished_at = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE clock_timestamp() END,
    worker_id = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE worker_id END,
    lease_expires_at = NULL
WHERE id <> ALL($2::bigint[]) AND worker_id = $1 AND status = 'RUNNING'
"""


async def release(db: Database, worker_id: UUID, begun: Iterable[int]) -> None:
    """Rule 19: give all claimed runs but those that have `begun` back to the queue. Only shutdown may do this."""
    await db.execute(_RELEASE, worker_id, list(begun))
