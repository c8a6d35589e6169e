"""What is to be done about the schema of a database: looked at, printed, or done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import asyncpg

from connecthub.errors import DatabaseError
from connecthub.storage import adoption
from connecthub.storage.database import CONNECT_TIMEOUT_S, UNAVAILABLE
from connecthub.storage.failures import unreachable
from connecthub.storage.schema import MIGRATION_LOCK, newer_schema_error, schema_scripts

_VERSION = """
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
);
DELETE FROM alembic_version;
INSERT INTO alembic_version (version_num) VALUES ('{revision}');
"""


@dataclass(frozen=True)
class _State:
    adopts: bool  # a database of the system before
    revision: str | None  # of the schema; None where there is none of ours

    def pending(self) -> list[str]:
        """The revisions that are to come, the oldest first. Raises DatabaseError for a newer schema."""
        known = list(schema_scripts())
        if self.revision is None:
            return known
        if self.revision not in known:
            raise newer_schema_error()
        return known[known.index(self.revision) + 1 :]


async def migrate(dsn: str) -> None:
    """Bring the schema up to date, adopting an older system's; hubs that start at once wait for each other.

    Raises DatabaseError where the database cannot be reached or its schema is newer than this version.
    """
    state = await _look(dsn)
    if state.pending():
        from connecthub.storage.upgrade import upgrade

        await upgrade(dsn)


async def pending_sql(dsn: str) -> str:
    """The script, one transaction for psql; empty where nothing is pending. Raises what `migrate` raises."""
    state = await _look(dsn)
    pending = state.pending()
    if not pending:
        return ""
    scripts = schema_scripts()
    parts = [f"-- {scripts[one].stem}\n{_sql(scripts[one])}" for one in pending]
    parts.append(_VERSION.format(revision=pending[-1]))
    if state.adopts:
        parts = [adoption.script("before"), *parts, adoption.script("after")]
    return "\n".join(["BEGIN;", f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK});", *parts, "COMMIT;\n"])


async def require_schema(dsn: str) -> None:
    """Make the schema in an empty database; leave any other to `migrate` and to the start of a hub.

    A command that only looks at a Job must not stop the older hubs of its database, nor adopt anything. Raises
    DatabaseError where the schema is not the one of this version.
    """
    state = await _look(dsn)
    if not state.pending():
        return
    if state.adopts:
        raise DatabaseError(
            "the database is of the system before ConnectHub: adopt it first (connecthub migrate, or start the hub)"
        )
    if state.revision is not None:
        raise DatabaseError(
            f"the schema of the database is {state.revision}, older than this version's: bring it up to date "
            "first (connecthub migrate, or start the hub), which ends the work of older hubs"
        )
    await migrate(dsn)


async def _look(dsn: str) -> _State:
    """Raises DatabaseError where the database cannot be reached, or is somebody else's."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
        try:
            if await adoption.is_due(connection):
                return _State(True, None)
            if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
                return _State(False, None)
            return _State(False, await connection.fetchval("SELECT version_num FROM alembic_version"))
        finally:
            await connection.close()
    except (*UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
        raise unreachable(error) from None


def _sql(script: Path) -> str:
    try:
        return script.read_text(encoding="utf-8")
    except OSError as error:
        raise DatabaseError(f"the migration {script} cannot be read: {error.strerror}") from None
