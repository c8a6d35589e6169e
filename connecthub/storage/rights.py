"""Whether the role of the database's URL may do what a hub does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connecthub.errors import DatabaseError
from connecthub.storage.failures import OWNER
from connecthub.storage.schema import is_no_extensions

if TYPE_CHECKING:
    from connecthub.storage.database import Database

_NAMED = 5
_LACKING = f"""
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
  AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
           AND (has_table_privilege(c.oid, 'UPDATE') OR c.relname = 'audit'))
  AND {is_no_extensions("c")}
ORDER BY c.relname
"""
_MAY_CREATE = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"


async def lacking_rights(db: Database, *, is_empty: bool = False) -> str | None:
    """What the role may not do, and what to do about it; None where it may do all that a hub does.

    Where the database `is_empty` it is the making of tables. Altering those that are there, which a migration
    does, an administrator may do in its place.
    """
    role = await db.fetchval("SELECT current_user")
    if is_empty:
        may = await db.fetchval(_MAY_CREATE)
        return None if may else f"role {role} may not create tables in it: {OWNER}"
    tables = [row["relname"] for row in await db.fetch(_LACKING)]
    if not tables:
        return None
    names = ", ".join(tables[:_NAMED]) + (", ..." if len(tables) > _NAMED else "")
    return f"role {role} may not read and write its tables {names}: {OWNER}"


async def require_rights(db: Database) -> None:
    """Raise DatabaseError where the role may not do what a hub does with the tables that are there."""
    lacking = await lacking_rights(db)
    if lacking is not None:
        raise DatabaseError(f"database cannot be used: {lacking}")
