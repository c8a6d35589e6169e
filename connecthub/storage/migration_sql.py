"""What `migrate` would run, as a script for those who read it first, or whose role may not change tables."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from connecthub.errors import DatabaseError
from connecthub.storage import adoption
from connecthub.storage.database import (
    CONNECT_TIMEOUT_S,
    MIGRATION_LOCK,
    UNAVAILABLE,
    newer_schema,
    schema_scripts,
    unreachable,
)

_VERSION = """
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
);
DELETE FROM alembic_version;
INSERT INTO alembic_version (version_num) VALUES ('{revision}');
"""


async def pending_sql(dsn: str) -> str:
    """The script, one transaction for psql; empty where nothing is pending. Raises what `migrate` raises."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
        try:
            adopts = await adoption.is_due(connection)
            revision = None if adopts else await _revision(connection)
        finally:
            await connection.close()
    except (*UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
        raise unreachable(error) from None
    scripts = schema_scripts()
    if revision is not None and revision not in scripts:
        raise newer_schema()
    known = list(scripts)
    pending = known[known.index(revision) + 1 :] if revision else known
    if not pending:
        return ""
    parts = [f"-- {Path(scripts[one]).stem}\n{_sql(scripts[one])}" for one in pending]
    parts.append(_VERSION.format(revision=known[-1]))
    if adopts:
        parts = [adoption.script("before"), *parts, adoption.script("after")]
    return "\n".join(["BEGIN;", f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK});", *parts, "COMMIT;\n"])


def _sql(migration: str) -> str:
    try:
        return Path(migration).with_suffix(".sql").read_text(encoding="utf-8")
    except OSError as error:
        raise DatabaseError(f"{migration} has no script beside it: {error.strerror}") from None


async def _revision(connection: asyncpg.Connection[asyncpg.Record]) -> str | None:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found = await connection.fetchval("SELECT version_num FROM alembic_version")
    return None if found is None else str(found)
