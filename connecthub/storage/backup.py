"""The SQL of backups: what is counted in one snapshot, and what surrounds a dump that is restored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from connecthub.errors import RefusedError
from connecthub.storage.database import CONNECT_TIMEOUT_S, UNAVAILABLE
from connecthub.storage.failures import unreachable
from connecthub.storage.hubs import IS_ALIVE
from connecthub.storage.keys import stored_tokens
from connecthub.storage.schema import MIGRATION_LOCK, is_no_extensions

_OURS = "relnamespace = '{schema}'::regnamespace AND " + is_no_extensions("c")


@dataclass(frozen=True)
class Snapshot:
    """A moment of the database: `id` is what pg_dump takes, `counts` the rows of each table.

    `going`: runs that are queued or running; `tokens`: some of what was encrypted, by which a key is seen to fit.
    """

    id: str
    server: str
    major: int
    schema: str
    revision: str
    counts: dict[str, int]
    going: int
    tokens: list[str]


@asynccontextmanager
async def taken_snapshot(dsn: str) -> AsyncIterator[Snapshot]:
    """A snapshot that lasts while this is entered. Raises RefusedError where there is nothing to back up."""
    async with _connected(dsn) as connection:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            try:
                snapshot = await _snapshot(connection)
            except UNAVAILABLE as error:  # told here: while the dump is written, an OSError is another one
                raise unreachable(error) from None
            yield snapshot


async def _snapshot(connection: asyncpg.Connection[asyncpg.Record]) -> Snapshot:
    await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    schema = await connection.fetchval(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('job_revisions')"
    )
    if schema is None:
        raise RefusedError("there is nothing to back up: the database holds no tables of ConnectHub")
    tables = await _tables(connection, schema)
    return Snapshot(
        id=await connection.fetchval("SELECT pg_export_snapshot()"),
        server=await connection.fetchval("SELECT current_setting('server_version')"),
        major=connection.get_server_version().major,
        schema=schema,
        revision=await connection.fetchval("SELECT version_num FROM alembic_version"),
        counts={
            table: await connection.fetchval(f'SELECT count(*) FROM {schema}."{table}"') for table in tables
        },
        going=await connection.fetchval(
            "SELECT count(*) FROM job_logs WHERE status IN ('QUEUED', 'RUNNING')"
        ),
        tokens=await stored_tokens(connection),
    )


@dataclass(frozen=True)
class Target:
    """Where a backup is to be restored: the server's `major`, and the `tables` that would be replaced.

    `alive`: the names of hubs that were seen within two minutes and have not stopped.
    """

    major: int
    database: str
    tables: list[str]
    alive: list[str]

    @property
    def is_foreign(self) -> bool:
        """Whether what is there is somebody else's."""
        return bool(self.tables) and "hub_state" not in self.tables


async def read_target(dsn: str, schema: str) -> Target:
    """Look at a database that may be empty, or hold the schema of another version."""
    async with _connected(dsn) as connection:
        exists = await connection.fetchval("SELECT true FROM pg_namespace WHERE nspname = $1", schema)
        tables = await _tables(connection, schema) if exists else []
        alive = []
        if "hubs" in tables:
            alive = await connection.fetch(f"SELECT name FROM {schema}.hubs WHERE {IS_ALIVE} ORDER BY name")
        return Target(
            major=connection.get_server_version().major,
            database=await connection.fetchval("SELECT current_database()"),
            tables=tables,
            alive=[row["name"] for row in alive],
        )


async def analyze(dsn: str) -> None:
    """Figures for the planner, which a restored table does not have."""
    async with _connected(dsn) as connection:
        await connection.execute("ANALYZE")


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    except (*UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
        raise unreachable(error) from None
    try:
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise unreachable(error) from None
    finally:
        await connection.close()


async def _tables(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> list[str]:
    rows = await connection.fetch(
        f"SELECT relname FROM pg_class c WHERE relkind IN ('r', 'p') AND {_OURS.format(schema=schema)} ORDER BY 1"
    )
    return [row["relname"] for row in rows]


# One transaction: psql gets it on its input, the dump in the middle, and COMMIT only when all of it came.
# `:'actor'` and `:'file'` are psql's variables. A hub that starts meanwhile waits for the lock of migrations.
_BEFORE = f"""
BEGIN;
SELECT pg_advisory_xact_lock({MIGRATION_LOCK});
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND application_name = 'connecthub') THEN
        RAISE EXCEPTION 'a hub or command is connected to the database: stop it, then restore again';
    END IF;
    IF to_regnamespace('{{schema}}') IS NULL THEN
        CREATE SCHEMA {{schema}};
    END IF;
END $$;
"""
_DROP = f"""
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT format('%I.%I', '{{schema}}', relname) AS name,
               CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind
        FROM pg_class c WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {_OURS}
        ORDER BY relkind = 'S'
    LOOP
        EXECUTE format('DROP %s IF EXISTS %s CASCADE', one.kind, one.name);
    END LOOP;
    FOR one IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE pronamespace = '{{schema}}'::regnamespace
          AND {is_no_extensions("p", "pg_proc")}
    LOOP
        EXECUTE format('DROP ROUTINE %s CASCADE', one.name);
    END LOOP;
END $$;
"""
_CHECK = """
    SELECT count(*) INTO found FROM {schema}."{table}";
    IF found <> {count} THEN
        RAISE EXCEPTION 'the table {table} got % rows instead of {count}', found;
    END IF;
"""
# What was going when the backup was made is going no more, and nobody is logged in.
_AFTER = """
SET LOCAL search_path TO {schema};
DO $$
DECLARE
    found bigint;
BEGIN
{checks}
END $$;
UPDATE job_logs SET status = 'LOST', reason = 'restored', finished_at = clock_timestamp()
WHERE status IN ('QUEUED', 'RUNNING');
UPDATE job_logs SET lease_expires_at = NULL WHERE lease_expires_at IS NOT NULL;
UPDATE hubs SET stopped_at = seen_at WHERE stopped_at IS NULL;
DELETE FROM sessions;
UPDATE hub_state SET paused_at = clock_timestamp(), paused_by = 'restore';
INSERT INTO audit (username, action, object) VALUES (:'actor', 'hub.restore', :'file'), (:'actor', 'hub.pause', '');
COMMIT;
"""


def restore_script(schema: str, counts: Mapping[str, int], *, replace: bool) -> tuple[str, str]:
    """What psql gets before and after the dump; `replace` drops what is in the schema."""
    checks = "".join(
        _CHECK.format(schema=schema, table=table, count=int(count)) for table, count in counts.items()
    )
    before = _BEFORE.format(schema=schema) + (_DROP.format(schema=schema) if replace else "")
    return before, _AFTER.format(schema=schema, checks=checks)


def is_plain(names: Any) -> bool:
    """Whether these can be names of a schema and its tables in a script."""
    return all(isinstance(name, str) and name.isidentifier() and name.isascii() for name in names)
