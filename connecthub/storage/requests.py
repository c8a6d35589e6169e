"""What people ask of runs: start one, retry one, cancel one. Each writes a row and notifies the hubs.

Who asked is in the audit, written in the same transaction.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

from connecthub.errors import NotFoundError, RefusedError
from connecthub.storage import audit
from connecthub.storage.database import CHANNEL

if TYPE_CHECKING:
    from connecthub.storage.audit import Actor
    from connecthub.storage.database import Connected, Database

STILL_RUNNING = "still running: wait until the run has ended, then retry"

# All in one statement: it begins, is audited, told and committed in one go. Of overrides the audit has only the
# names: a person may have typed a secret into the wrong field.
_RUN = f"""
WITH run AS (
    INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, priority, params, triggered_by)
    SELECT id, revision_id, $2, 'QUEUED', id || ':run:' || $3::text, priority, $4::jsonb, $5
    FROM jobs WHERE id = $1 FOR KEY SHARE
    RETURNING id
), audited AS (
    {audit.INSERT} SELECT $5, 'job.run', $1, $6, jsonb_build_object('run_id', id, 'params', $7::text[]) FROM run
)
SELECT id, pg_notify('{CHANNEL}', 'run') FROM run
"""
# The lock holds back a second click until the first has its run. The look is a statement of its own, after it.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1 || ':run:' || $2, 0))"
_ASKED = "SELECT id FROM job_logs WHERE idempotency_key = $1 || ':run:' || $2 ORDER BY id LIMIT 1"


async def request_run(
    db: Database,
    job_id: str,
    *,
    actor: Actor,
    params: dict[str, Any] | None = None,
    trigger: str = "manual",
    token: UUID | None = None,
) -> int:
    """Queue a run of the Job now, `params` overriding its public_cfg for this once; the run's id.

    A disabled Job runs too, and beside a run that is going. `token` names one asking: asked again with it and the
    same parameters, the run of the first time is given, and no other is made. Raises NotFoundError.
    """
    overrides = None if params is None else json.dumps(params, ensure_ascii=False)
    name = str(uuid5(token, overrides or "") if token else uuid4())
    values = job_id, trigger, name, overrides, actor.username, actor.address, sorted(params or {})
    if token is None:
        run_id = await db.fetchval(_RUN, *values)
    else:
        async with db.transaction() as connection:
            await connection.execute(_LOCK, job_id, name)
            run_id = await connection.fetchval(_ASKED, job_id, name)
            if run_id is None:
                run_id = await connection.fetchval(_RUN, *values)
    if run_id is None:
        raise NotFoundError(f"there is no Job {job_id}")
    return int(run_id)


_RETRY = """
INSERT INTO job_logs (job_id, revision_id, trigger, status, scheduled_for, retry_of, idempotency_key, priority,
                      params, triggered_by)
SELECT o.job_id, CASE WHEN $3 THEN j.revision_id ELSE o.revision_id END, 'retry', 'QUEUED', o.scheduled_for, o.id, o.idempotency_key, o.priority,
       CASE WHEN NOT $3 THEN o.params END, $2
FROM job_logs o JOIN jobs j ON j.id = o.job_id WHERE o.id = $1 FOR KEY SHARE OF j
RETURNING id
"""
# The retry of this kind that was asked for after the run `$3` of its key was the newest one.
_RETRIED = """
SELECT n.id FROM job_logs o JOIN jobs j ON j.id = o.job_id
JOIN job_logs n ON n.idempotency_key = o.idempotency_key AND n.retry_of = o.id AND n.trigger = 'retry' AND n.id > $3
WHERE o.id = $1 AND n.revision_id = CASE WHEN $2 THEN j.revision_id ELSE o.revision_id END
  AND n.params IS NOT DISTINCT FROM CASE WHEN NOT $2 THEN o.params END
ORDER BY n.id LIMIT 1
"""
_GOING = """
SELECT id FROM job_logs WHERE idempotency_key = $1 AND is_going(status, not_before, lease_expires_at)
ORDER BY id LIMIT 1
"""
# A person's retry takes the place of the attempt that would have come by itself.
_TAKE_OVER = """
UPDATE job_logs SET status = 'CANCELLED', reason = 'superseded', finished_at = clock_timestamp()
WHERE idempotency_key = $1 AND status = 'QUEUED' AND not_before > clock_timestamp()
"""


async def retry_run(
    db: Database, log_id: int, *, actor: Actor, today: bool = False, seen: int | None = None
) -> int:
    """Queue the run again as it ran: its revision, overrides and fire time; the new run's id.

    `today`: with the Job's current revision and no overrides instead. `seen` is the newest run of its
    idempotency key that the asker knew of: a retry that has been made since is the one meant, so that asking
    twice makes one.

    Raises NotFoundError, and RefusedError while a run with the same idempotency key is going.
    """
    async with db.transaction() as connection:
        key = await connection.fetchval("SELECT idempotency_key FROM job_logs WHERE id = $1", log_id)
        if key is None:
            raise NotFoundError(f"there is no run {log_id}")
        # Two retries at once: the second one sees what the first has queued.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", key)
        if seen is not None:
            made = await connection.fetchval(_RETRIED, log_id, today, seen)
            if made is not None:
                return int(made)
        # First what only waits for its delay: taken over, it cannot become due between these statements.
        await connection.execute(_TAKE_OVER, key)
        if await connection.fetchval(_GOING, key) is not None:
            raise RefusedError(STILL_RUNNING)
        run_id = await connection.fetchval(_RETRY, log_id, actor.username, today)
        if run_id is None:
            raise NotFoundError(f"the Job of run {log_id} is gone")
        detail = {"run_id": run_id, "today": today}
        await audit.record(connection, actor.username, "run.retry", str(log_id), actor.address, detail)
        await _tell(connection, "run")
    return int(run_id)


# Rule 17: one UPDATE with a CASE; two statements would miss a release in between.
_CANCEL = """
UPDATE job_logs SET
    cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
    meta = meta || jsonb_build_object('cancelled_by', $2::text),
    reason = CASE status WHEN 'QUEUED' THEN 'cancelled' ELSE reason END,
    finished_at = CASE status WHEN 'QUEUED' THEN clock_timestamp() ELSE finished_at END,
    status = CASE status WHEN 'QUEUED' THEN 'CANCELLED' ELSE status END
WHERE id = $1 AND status IN ('QUEUED', 'RUNNING')
RETURNING status
"""


async def cancel_run(db: Database, log_id: int, *, actor: Actor) -> str:
    """Cancel a queued run (CANCELLED), or ask a running one to stop (RUNNING); which of the two.

    Raises NotFoundError, and RefusedError where the run has ended.
    """
    async with db.transaction() as connection:
        status = await connection.fetchval(_CANCEL, log_id, actor.username)
        if status is None:
            if await connection.fetchval("SELECT true FROM job_logs WHERE id = $1", log_id):
                raise RefusedError(f"run {log_id} has ended already")
            raise NotFoundError(f"there is no run {log_id}")
        await audit.record(connection, actor.username, "run.cancel", str(log_id), actor.address)
        await _tell(connection, f"cancel {log_id}")
    return str(status)


async def set_paused(db: Database, paused: bool, *, actor: Actor) -> bool:
    """Pause all hubs (ticks insert nothing, claims take nothing), or resume them; False: it was so already."""
    async with db.transaction() as connection:
        changed = await connection.fetchval(
            "UPDATE hub_state SET paused_at = CASE WHEN $1 THEN clock_timestamp() END,"
            " paused_by = CASE WHEN $1 THEN $2::text END"
            " WHERE (paused_at IS NOT NULL) <> $1 RETURNING true",
            paused,
            actor.username,
        )
        if not changed:
            return False
        action = "hub.pause" if paused else "hub.resume"
        await audit.record(connection, actor.username, action, "", actor.address)
        await _tell(connection, "run")
    return True


async def _tell(connection: Connected, payload: str) -> None:
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
