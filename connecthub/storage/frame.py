"""What the frame of the admin's pages asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

    from connecthub.storage.database import Database


async def job_exists(db: Database, job_id: str) -> bool:
    """Whether there is a Job of this id."""
    return bool(await db.fetchval("SELECT EXISTS (SELECT FROM jobs WHERE id = $1)", job_id))


async def pause_outlook(db: Database) -> asyncpg.Record | None:
    """What a pause would meet: `jobs` that fire no more, and runs `running` that go on."""
    return await db.fetchrow(
        "SELECT (SELECT count(*) FROM jobs WHERE enabled) AS jobs,"
        " (SELECT count(*) FROM job_logs WHERE status = 'RUNNING') AS running"
    )
