"""Jobs and runs as the admin's forms and pages read and write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from connecthub.errors import NotFoundError, RefusedError
from connecthub.storage import audit
from connecthub.storage.audit import Actor

if TYPE_CHECKING:
    from connecthub.storage.database import Connected, Database

Row = asyncpg.Record


@dataclass(frozen=True)
class JobDefinition:
    """What a person saves. `public_cfg` is JSON text, `secret_cfg` a token of the vault or None for none."""

    id: str
    name: str
    tags: list[str]
    enabled: bool
    cron_expr: str
    timezone: str
    handler_path: str
    public_cfg: str
    secret_cfg: str | None
    misfire: str
    misfire_window_s: int
    overlap: str
    timeout_s: int | None
    max_attempts: int
    retry_delays: list[int]
    rerun_lost: bool
    priority: int
    keep_secret: bool = False  # secret_cfg stays what it is in the database


_COLUMNS = (
    "id, name, tags, enabled, cron_expr, timezone, handler_path, public_cfg, secret_cfg, misfire, "
    "misfire_window_s, overlap, timeout_s, max_attempts, retry_delays, rerun_lost, priority"
)
_INSERT = f"""
INSERT INTO jobs ({_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""
_UPDATE = """
UPDATE jobs SET name = $2, tags = $3, enabled = $4, cron_expr = $5, timezone = $6, handler_path = $7,
    public_cfg = $8::jsonb, secret_cfg = CASE WHEN $18 THEN secret_cfg ELSE $9 END, misfire = $10,
    misfire_window_s = $11, overlap = $12, timeout_s = $13, max_attempts = $14, retry_delays = $15,
    rerun_lost = $16, priority = $17
WHERE id = $1 AND revision_id = $19
"""


def _values(job: JobDefinition) -> list[Any]:
    """The values of `_COLUMNS`, in its order."""
    return [getattr(job, name) for name in _COLUMNS.split(", ")]


@dataclass(frozen=True)
class JobSave:
    """A definition to store. `seen`: the revision_id that it was changed from, None for a new Job."""

    job: JobDefinition
    detail: dict[str, Any]  # for the audit
    seen: int | None


async def create_job(db: Database, job: JobDefinition, actor: Actor, detail: dict[str, Any]) -> None:
    """Store a new Job. Raises RefusedError where the id is taken, asyncpg.DataError for a value it refuses."""
    await save_jobs(db, [JobSave(job, detail, None)], actor)


async def update_job(
    db: Database, job: JobDefinition, actor: Actor, detail: dict[str, Any], seen: int
) -> None:
    """Store what was changed since the revision_id `seen`.

    Raises NotFoundError, RefusedError where somebody has saved the Job meanwhile, asyncpg.DataError for a
    value it refuses.
    """
    await save_jobs(db, [JobSave(job, detail, seen)], actor)


async def save_jobs(db: Database, saves: Sequence[JobSave], actor: Actor) -> None:
    """Store all of them or none; raises what `create_job` and `update_job` raise."""
    async with db.transaction(actor.username) as connection:
        for save in saves:
            if save.seen is None:
                await _insert(connection, save.job)
            else:
                await _update(connection, save.job, save.seen)
            action = "job.create" if save.seen is None else "job.update"
            await audit.record(connection, actor.username, action, save.job.id, actor.address, save.detail)


async def _insert(connection: Connected, job: JobDefinition) -> None:
    try:
        await connection.execute(_INSERT, *_values(job))
    except asyncpg.UniqueViolationError:
        raise RefusedError(f"there is a Job {job.id} already") from None


async def _update(connection: Connected, job: JobDefinition, seen: int) -> None:
    done = await connection.execute(_UPDATE, *_values(job), job.keep_secret, seen)
    if done == "UPDATE 0":
        if await connection.fetchval("SELECT true FROM jobs WHERE id = $1", job.id):
            raise RefusedError(f"Job {job.id} was changed meanwhile")
        raise NotFoundError(f"there is no Job {job.id}")


async def read_job(db: Database, job_id: str) -> Row | None:
    """Everything about a Job, its encrypted secret_cfg included, with its newest revision."""
    return await db.fetchrow(
        "SELECT j.*, r.number AS revision, r.saved_at, r.saved_by"
        " FROM jobs j JOIN job_revisions r ON r.id = j.revision_id WHERE j.id = $1",
        job_id,
    )


async def read_jobs(db: Database, job_ids: Sequence[str]) -> list[Row]:
    """Whole Jobs with their encrypted secret_cfg by id, those of `job_ids` or, where it is empty, all."""
    return await db.fetch(
        "SELECT * FROM jobs WHERE cardinality($1::text[]) = 0 OR id = ANY($1::text[]) ORDER BY id",
        list(job_ids),
    )
