"""What `connecthub check` reads: the server, the schema, and what of each Job may be broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connecthub.storage.schema import schema_revisions

if TYPE_CHECKING:
    import asyncpg

    from connecthub.storage.database import Database

_SERVER = """
SELECT current_setting('server_version') AS version, current_database() AS name, pg_is_in_recovery() AS is_standby,
       pg_size_pretty(pg_database_size(current_database())) AS size,
       current_setting('fsync') = 'off' OR current_setting('full_page_writes') = 'off' AS is_careless,
       (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()) AS encoding,
       clock_timestamp() AS now
"""


async def read_server(db: Database) -> asyncpg.Record:
    """One row: version, name, size, encoding and clock of the database, whether it is a standby or `is_careless`.

    A careless server may lose the database when the power fails.
    """
    row = await db.fetchrow(_SERVER)
    assert row is not None  # noqa: S101 - a SELECT without FROM
    return row


async def schema_revision(db: Database) -> str | None:
    """The revision of the schema; None where there is none."""
    if await db.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found = await db.fetchval("SELECT version_num FROM alembic_version")
    return None if found is None else str(found)


async def newer_schema(db: Database) -> str | None:
    """The revision of the schema where a newer version of ConnectHub has made it, else None."""
    revision = await schema_revision(db)
    return None if revision in (None, *schema_revisions()) else revision


async def read_jobs(db: Database) -> list[asyncpg.Record]:
    """Of each Job what has to be right for it to run, in order of the ids."""
    return await db.fetch(
        "SELECT id, enabled, cron_expr, timezone, handler_path, secret_cfg, schedule_error FROM jobs ORDER BY id"
    )


async def read_pause(db: Database) -> asyncpg.Record:
    """One row: paused_at and paused_by, None where no pause is on."""
    row = await db.fetchrow("SELECT paused_at, paused_by FROM hub_state")
    assert row is not None  # noqa: S101 - hub_state has one row
    return row
