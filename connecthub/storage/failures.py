"""What a person is told where the database cannot be used."""

from __future__ import annotations

import re

import asyncpg

from connecthub.errors import DatabaseError

OWNER = "the role of [database] url must own the database (ALTER DATABASE name OWNER TO role) and the tables in it"
_MAKE_ROOM = "make room on the disk of the database"
# A role that may not use the schema `public` at all has none to create tables in.
_NO_RIGHTS = (asyncpg.InsufficientPrivilegeError.sqlstate, asyncpg.InvalidSchemaNameError.sqlstate)
_TO_DO = {
    **dict.fromkeys(_NO_RIGHTS, OWNER),
    asyncpg.DiskFullError.sqlstate: _MAKE_ROOM,
}


def way_out(complaint: str) -> str:
    """What to do about what a program of PostgreSQL complained of."""
    if re.search("permission denied|must be owner|may lack SELECT privilege", complaint):
        return OWNER
    return _MAKE_ROOM if "No space left on device" in complaint else "mend that, then try again"


def unreachable(error: BaseException) -> DatabaseError:
    """The one line that a person sees for what asyncpg raised."""
    words = " ".join(str(error).split()) or type(error).__name__
    # Through SQLAlchemy the error is of another class, with the same code.
    to_do = _TO_DO.get(getattr(error, "sqlstate", None) or "")
    if to_do is not None:
        words = re.sub(r"^<class '[^']*'>: ", "", words)
        return DatabaseError(f"database cannot be used: {words}; {to_do}")
    return DatabaseError(
        f"database cannot be used: {words}; check [database] url (CONNECTHUB_DATABASE__URL) and that the "
        "server runs, or leave it empty for the embedded PostgreSQL"
    )
