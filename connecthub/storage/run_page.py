"""What the page of one run reads: the run with its Job, its chain, and the log as it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connecthub.storage.job_pages import DEFINITION
from connecthub.storage.jobs import Row
from connecthub.storage.overview import USUAL

if TYPE_CHECKING:
    from connecthub.storage.database import Database

_RUN = f"""
SELECT l.*, r.number AS revision, r.name AS name_then, r.handler_path, r.max_attempts, r.timeout_s, r.saved_by,
       r.public_cfg || coalesce(l.params, '{{}}') AS public_cfg,
       j.id IS NOT NULL AS job_exists, j.name, j.timezone,
       is_going(l.status, l.not_before, l.lease_expires_at) AS going, clock_timestamp() AS now,
       l.finished_at IS NOT NULL AND coalesce(l.lease_expires_at > clock_timestamp(), false) AS holds_place,
       h.name AS worker, usual.usual_s, usual.slow_s,
       (SELECT count(*) FROM job_logs q WHERE l.status = 'QUEUED' AND q.status = 'QUEUED'
          AND (q.priority, q.trigger <> 'schedule', -q.id) > (l.priority, l.trigger <> 'schedule', -l.id)
          AND coalesce(q.not_before <= clock_timestamp(), true)) AS in_front,
       (SELECT paused_at FROM hub_state) AS paused_at
FROM job_logs l JOIN job_revisions r ON r.id = l.revision_id
LEFT JOIN jobs j ON j.id = l.job_id LEFT JOIN hubs h ON h.worker_id = l.worker_id
{USUAL}
WHERE l.id = $1
"""


async def read_whole_run(db: Database, log_id: int) -> Row | None:
    """Everything that its page says of a run but its chain; of secrets nothing."""
    return await db.fetchrow(_RUN, log_id)


async def read_definitions(db: Database, log_id: int) -> tuple[Row, Row | None] | None:
    """The definition a run ran with, overrides applied, and today's of its Job (None: deleted), secrets encrypted."""
    then = await db.fetchrow(
        "SELECT r.*, r.public_cfg || coalesce(l.params, '{}') AS public_cfg, l.job_id AS job"
        " FROM job_logs l JOIN job_revisions r ON r.id = l.revision_id WHERE l.id = $1",
        log_id,
    )
    if then is None:
        return None
    columns = ", ".join(f"j.{name}" for name in DEFINITION.split(", "))
    today = await db.fetchrow(
        f"SELECT {columns}, r.number FROM jobs j JOIN job_revisions r ON r.id = j.revision_id WHERE j.id = $1",
        then["job"],
    )
    return then, today


_CHAIN = """
SELECT id, status, reason, attempt, trigger, started_at, queued_at, finished_at, not_before, retry_of, triggered_by
FROM job_logs WHERE idempotency_key = $1 ORDER BY id DESC LIMIT 100
"""


async def read_chain(db: Database, idempotency_key: str) -> list[Row]:
    """All runs for one fire time or request: attempts and retries, oldest first (the newest 100)."""
    return (await db.fetch(_CHAIN, idempotency_key))[::-1]


async def neighbours(db: Database, job_id: str, log_id: int) -> tuple[int | None, int | None]:
    """The runs of the Job just before and just after this one."""
    row = await db.fetchrow(
        "SELECT (SELECT max(id) FROM job_logs WHERE job_id = $1 AND id < $2) AS before,"
        " (SELECT min(id) FROM job_logs WHERE job_id = $1 AND id > $2) AS after",
        job_id,
        log_id,
    )
    return (row["before"], row["after"]) if row else (None, None)


async def blocking_run(db: Database, job_id: str, log_id: int) -> int | None:
    """The run that was going when `log_id` was skipped for overlap, as far as the records tell."""
    found = await db.fetchval(
        "SELECT b.id FROM job_logs b, job_logs l WHERE l.id = $2 AND b.job_id = $1 AND b.id < l.id"
        " AND b.status <> 'SKIPPED' AND b.queued_at <= l.queued_at"
        " AND coalesce(b.finished_at, 'infinity') >= l.queued_at ORDER BY b.id DESC LIMIT 1",
        job_id,
        log_id,
    )
    return None if found is None else int(found)


_GROWTH = """
SELECT status, cancel_requested_at, progress::text AS progress, started_at, finished_at IS NOT NULL AS ended,
       lease_expires_at > clock_timestamp() AS leased,
       CASE WHEN xmin::text <> $2 THEN run_log END AS run_log, xmin::text AS version
FROM job_logs WHERE id = $1
"""


async def read_growth(db: Database, log_id: int, seen: str = "") -> Row | None:
    """The state of a run for its live page; `run_log` only where the row's `version` is not the one that was `seen`.

    The length of a log tells nothing: once its middle is left out, it stays the same.
    """
    return await db.fetchrow(_GROWTH, log_id, seen)
