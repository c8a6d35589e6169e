"""What a person is told where the database cannot be used."""

from __future__ import annotations

import re

import asyncpg

from connecthub.errors import DatabaseError

# A role that may not use the schema `public` at all has none to create tables in.
_NO_RIGHTS = (asyncpg.InsufficientPrivilegeError.sqlstate, asyncpg.InvalidSchemaNameError.sqlstate)


def unreachable(error: BaseException) -> DatabaseError:
    """The one line that a person sees for what asyncpg raised."""
    words = " ".join(str(error).split()) or type(error).__name__
    # Through SQLAlchemy the error is of another class, with the same code.
    if getattr(error, "sqlstate", None) in _NO_RIGHTS:
        words = re.sub(r"^<class '[^']*'>: ", "", words)
        return DatabaseError(
            f"database cannot be used: {words}; give the role of [database] url a database of its own: "
            "ALTER DATABASE name OWNER TO role"
        )
    return DatabaseError(
        f"database cannot be used: {words}; check [database] url (CONNECTHUB_DATABASE__URL) and that the "
        "server runs, or leave it empty for the embedded PostgreSQL"
    )
