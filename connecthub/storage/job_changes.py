"""What people do to Jobs beside editing them: switch, clear, delete, restore; on one or on many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from connecthub.errors import NotFoundError, RefusedError
from connecthub.storage import audit
from connecthub.storage.audit import Actor
from connecthub.storage.job_pages import DEFINITION

if TYPE_CHECKING:
    from connecthub.storage.database import Database

_LONG_S = 600  # a million records take longer to delete than a page may take otherwise

# Locked in one order, so that two such changes never wait for each other crosswise.
_SWITCH = """
UPDATE jobs SET enabled = $2 WHERE enabled <> $2 AND id IN (
    SELECT id FROM jobs WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE
) RETURNING id
"""
_CLEAR = """
WITH gone AS (
    DELETE FROM job_logs
    WHERE job_id = ANY($1::text[]) AND finished_at IS NOT NULL
      AND NOT is_going(status, not_before, lease_expires_at)
    RETURNING job_id
)
SELECT job_id, count(*) AS records FROM gone GROUP BY job_id ORDER BY job_id
"""


@dataclass(frozen=True)
class Switched:
    """Jobs that were switched, and the entries of the audit that say so."""

    job_ids: list[str]
    entries: list[int]


def _action(enabled: bool) -> str:
    return "job.enable" if enabled else "job.disable"


async def switch_jobs(db: Database, job_ids: Sequence[str], enabled: bool, actor: Actor) -> Switched:
    """Enable or disable Jobs; those that were not so before."""
    async with db.transaction(actor.username) as connection:
        rows = await connection.fetch(_SWITCH, list(job_ids), enabled)
        entries = [
            await audit.record(connection, actor.username, _action(enabled), row["id"], actor.address)
            for row in rows
        ]
    return Switched([row["id"] for row in rows], entries)


async def switched_jobs(db: Database, entries: tuple[int, int], enabled: bool, actor: Actor) -> list[str]:
    """What the actor has switched so, by the first and the last of those entries of the audit."""
    rows = await db.fetch(
        "SELECT object FROM audit WHERE id BETWEEN $1 AND $2 AND username = $3 AND action = $4 ORDER BY id",
        *entries,
        actor.username,
        _action(enabled),
    )
    return [row["object"] for row in rows]


async def clear_runs(db: Database, job_ids: Sequence[str], actor: Actor) -> int:
    """Delete the ended runs of Jobs with their logs; how many. Runs that are going or queued stay."""
    async with db.transaction(actor.username) as connection:
        rows = await connection.fetch(_CLEAR, list(job_ids), timeout=_LONG_S)
        for row in rows:
            detail = {"records": row["records"]}
            await audit.record(connection, actor.username, "job.clear", row["job_id"], actor.address, detail)
    return sum(row["records"] for row in rows)


async def delete_jobs(db: Database, job_ids: Sequence[str], actor: Actor) -> int:
    """Delete all of these Jobs with their runs and revisions, or none; how many.

    Raises RefusedError while a run of one of them is going.
    """
    try:
        async with db.transaction(actor.username) as connection:
            rows = await connection.fetch(
                "DELETE FROM jobs WHERE id = ANY($1::text[]) RETURNING id", list(job_ids), timeout=_LONG_S
            )
            for row in rows:
                await audit.record(connection, actor.username, "job.delete", row["id"], actor.address)
    except asyncpg.ObjectInUseError as error:
        raise RefusedError(str(error)) from None
    return len(rows)


_COLUMNS = [name.strip() for name in DEFINITION.split(",")]
_RESTORE = f"""
UPDATE jobs j SET {", ".join(f"{name} = r.{name}" for name in _COLUMNS)}
FROM job_revisions r
WHERE j.id = $1 AND r.job_id = j.id AND r.number = $2 AND j.revision_id = $3
RETURNING j.revision_id
"""


async def restore_revision(
    db: Database, job_id: str, number: int, seen: int, actor: Actor, detail: dict[str, Any]
) -> None:
    """Save the revision with this number again; `seen` is the revision_id that the person was shown as current.

    Raises NotFoundError, and RefusedError where somebody has saved the Job meanwhile.
    """
    async with db.transaction(actor.username) as connection:
        if await connection.fetchval(_RESTORE, job_id, number, seen) is None:
            if await connection.fetchval("SELECT true FROM jobs WHERE id = $1", job_id) is None:
                raise NotFoundError(f"there is no Job {job_id}")
            raise RefusedError(f"Job {job_id} was changed meanwhile")
        await audit.record(connection, actor.username, "job.restore", job_id, actor.address, detail)
