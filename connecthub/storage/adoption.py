"""Adopts the database of the system that ConnectHub replaces, in place: its rows are copied, its tables kept aside.

That system had `jobs` and `job_logs` of another shape, in several ages; the scripts beside the migrations know
them all. What is neither ours nor that is refused.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from connecthub.errors import DatabaseError
from connecthub.storage.schema import is_no_extensions

if TYPE_CHECKING:
    from connecthub.storage.database import Connected

log = logging.getLogger(__name__)

SCHEMA = "before_connecthub"
_FOLDER = Path(__file__).with_name("migrations")
_NAMED = 5
# What columns of other types, or rows that get into each other's way, end with.
_UNLIKE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.PLPGSQLError,
)
_TABLES = f"""
SELECT c.relname AS name, array_agg(a.attname::text) AS columns
FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
  AND {is_no_extensions("c")}
GROUP BY c.relname ORDER BY c.relname
"""
_OLD = {"jobs": {"id", "cron_expr", "handler_path"}, "job_logs": {"id", "job_id", "status"}}


async def is_due(connection: Connected) -> bool:
    """Whether this is a database of the old system; False for ours and for an empty one.

    Raises DatabaseError for any other.
    """
    rows: list[asyncpg.Record] = await connection.fetch(_TABLES)
    tables = {row["name"]: set(row["columns"]) for row in rows}
    if not tables or "hub_state" in tables:
        return False
    if all(columns <= tables.get(name, set()) for name, columns in _OLD.items()):
        return True
    names = ", ".join(list(tables)[:_NAMED]) + (", ..." if len(tables) > _NAMED else "")
    raise DatabaseError(
        f"database cannot be used: it holds tables that are not ConnectHub's ({names}); give it an empty "
        "database of its own ([database] url)"
    )


def script(part: str) -> str:
    """What runs `before` and `after` the migrations."""
    return (_FOLDER / f"adoption_{part}.sql").read_text(encoding="utf-8")


async def run(connection: Any, part: str) -> None:
    """Run a script. Raises DatabaseError where the database is not quite what that system had."""
    try:
        await connection.execute(script(part))
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError):
        raise
    except _UNLIKE as error:
        raise DatabaseError(
            f"database of the system before ConnectHub cannot be adopted: {' '.join(str(error).split())}; nothing "
            "was changed: correct that column or row, then start again"
        ) from None


async def tell(connection: Connected) -> None:
    """Say in the log what was adopted."""
    jobs = await connection.fetchval("SELECT count(*) FROM jobs")
    runs = await connection.fetchval("SELECT count(*) FROM job_logs")
    log.warning(
        "adopted it: %d Jobs and %d runs; its own tables are kept in the schema %s",
        jobs,
        runs,
        SCHEMA,
    )
