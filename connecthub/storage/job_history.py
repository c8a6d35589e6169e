"""What the records say about one Job at one moment: the ground of "Why did it not run?"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from connecthub.storage.job_pages import DEFINITION
from connecthub.storage.jobs import Row

if TYPE_CHECKING:
    from connecthub.storage.database import Connected, Database


@dataclass(frozen=True)
class Switch:
    """A stretch of time that somebody began, and maybe somebody ended."""

    since: datetime
    by: str | None
    until: datetime | None = None


@dataclass(frozen=True)
class Down:
    """A stretch in which no hub was alive. `since` None: as far back as the records go; `until` None: still."""

    since: datetime | None
    until: datetime | None


@dataclass(frozen=True)
class Facts:
    """The records around a moment; what is None is not there."""

    revision: Row | None  # in force at that moment
    first_saved: datetime | None  # of the first revision, the Job did not exist before; None: no longer kept
    run: Row | None  # the scheduled first attempt whose fire time it is
    missed: Row | None  # the SKIPPED row of a stretch of missed times that covers it
    made_up: Row | None  # the run that the same tick started for the newest of them
    disabled: Switch | None
    paused: Switch | None
    down: Down | None
    cleared: Switch | None  # when and by whom runs of it were cleared later
    schedule_error: str | None


_RUN = "id, status, reason, scheduled_for, queued_at, started_at, finished_at, meta, attempt, trigger, triggered_by"
_AT = f"""
SELECT {_RUN} FROM job_logs
WHERE job_id = $1 AND scheduled_for >= $2 AND scheduled_for < $2 + interval '1 minute'
  AND trigger = 'schedule' AND attempt = 1
ORDER BY status = 'SKIPPED', id LIMIT 1
"""
_MISSED = f"""
SELECT {_RUN} FROM job_logs
WHERE job_id = $1 AND status = 'SKIPPED' AND reason = 'missed' AND scheduled_for >= $2
  AND (meta #>> '{{missed,from}}')::timestamptz <= $2 + interval '59 seconds'
ORDER BY scheduled_for LIMIT 1
"""
# The rows of one tick are written by one statement.
_MADE_UP = f"""
SELECT {_RUN} FROM job_logs
WHERE job_id = $1 AND trigger = 'schedule' AND attempt = 1 AND status <> 'SKIPPED' AND scheduled_for > $2
  AND queued_at BETWEEN $3::timestamptz - interval '1 second' AND $3::timestamptz + interval '1 second'
ORDER BY scheduled_for LIMIT 1
"""
_IN_FORCE = f"""
SELECT id, number, saved_at, saved_by, {DEFINITION} FROM job_revisions
WHERE job_id = $1 AND saved_at <= $2 ORDER BY number DESC LIMIT 1
"""
# The change that disabled it, not a later edit of the disabled Job.
_DISABLED = """
SELECT number, saved_at, saved_by FROM job_revisions
WHERE job_id = $1 AND number > coalesce(
    (SELECT max(number) FROM job_revisions WHERE job_id = $1 AND saved_at <= $2 AND enabled), 0)
ORDER BY number LIMIT 1
"""
_ENABLED = """
SELECT min(saved_at) FROM job_revisions WHERE job_id = $1 AND saved_at > $2 AND enabled
"""
_PAUSE = """
SELECT p.at AS since, p.username AS by, (
    SELECT min(r.at) FROM audit r WHERE r.action IN ('resume', 'hub.resume') AND r.at > p.at) AS until
FROM audit p WHERE p.action IN ('pause', 'hub.pause') AND p.at <= $1 ORDER BY p.id DESC LIMIT 1
"""
_DOWN = """
SELECT max(coalesce(stopped_at, seen_at)) FILTER (WHERE started_at <= $1) AS since,
       min(started_at) FILTER (WHERE started_at > $1) AS until,
       coalesce(bool_or(started_at <= $1 AND coalesce(stopped_at, seen_at) >= $1), false) AS alive,
       count(*) AS hubs
FROM hubs
"""
_CLEARED = """
SELECT at AS since, username AS by FROM audit WHERE action = 'job.clear' AND object = $1 AND at > $2
ORDER BY id DESC LIMIT 1
"""


async def facts_at(db: Database, job_id: str, moment: datetime) -> Facts:
    """Everything that bears on whether the Job ran at `moment`, the whole minute from it."""
    async with db.transaction() as connection:
        revision = await connection.fetchrow(_IN_FORCE, job_id, moment)
        first = await connection.fetchval(
            "SELECT saved_at FROM job_revisions WHERE job_id = $1 AND number = 1", job_id
        )
        missed = await connection.fetchrow(_MISSED, job_id, moment)
        made_up = None
        if missed is not None:
            made_up = await connection.fetchrow(
                _MADE_UP, job_id, missed["scheduled_for"], missed["queued_at"]
            )
        cleared = await connection.fetchrow(_CLEARED, job_id, moment)
        return Facts(
            revision=revision,
            first_saved=first,
            run=await connection.fetchrow(_AT, job_id, moment),
            missed=missed,
            made_up=made_up,
            disabled=await _disabled(connection, job_id, moment, revision),
            paused=await _paused(connection, moment),
            down=await _down(connection, moment),
            cleared=Switch(**dict(cleared)) if cleared else None,
            schedule_error=await connection.fetchval("SELECT schedule_error FROM jobs WHERE id = $1", job_id),
        )


async def _disabled(
    connection: Connected, job_id: str, moment: datetime, revision: Row | None
) -> Switch | None:
    if revision is None or revision["enabled"]:
        return None
    row = await connection.fetchrow(_DISABLED, job_id, moment)
    until = await connection.fetchval(_ENABLED, job_id, moment)
    return Switch(row["saved_at"], row["saved_by"], until) if row else None


async def _paused(connection: Connected, moment: datetime) -> Switch | None:
    """The pause that held at `moment`: from the audit, or the one that holds now."""
    row = await connection.fetchrow(_PAUSE, moment)
    if row is not None and (row["until"] is None or row["until"] > moment):
        state = await connection.fetchval("SELECT paused_at FROM hub_state")
        if row["until"] is not None or state is not None:
            return Switch(row["since"], row["by"], row["until"])
    row = await connection.fetchrow(
        "SELECT paused_at, paused_by FROM hub_state WHERE paused_at <= $1", moment
    )
    return Switch(row["paused_at"], row["paused_by"]) if row else None


async def _down(connection: Connected, moment: datetime) -> Down | None:
    row = await connection.fetchrow(_DOWN, moment)
    if row is None or row["alive"] or not row["hubs"]:
        return None
    return Down(row["since"], row["until"])
