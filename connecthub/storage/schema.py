"""Which revisions of the schema this version of ConnectHub knows: one migration each, in a line."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from connecthub.errors import DatabaseError

MIGRATIONS = Path(__file__).with_name("migrations")
MIGRATION_LOCK = 0x636F6E6E656374  # any fixed number, the same for all hubs


def schema_head() -> str:
    """The revision of the schema that this version of ConnectHub works with."""
    return schema_revisions()[-1]


@cache
def schema_revisions() -> tuple[str, ...]:
    """All revisions that this version knows, the oldest first."""
    return tuple(schema_scripts())


@cache
def schema_scripts() -> dict[str, Path]:
    """The SQL of the migrations by revision, the oldest first."""
    return {
        path.stem.partition("_")[0]: path for path in sorted((MIGRATIONS / "versions").glob("[0-9]*.sql"))
    }


def is_known(revisions: str) -> str:
    """SQL: whether the schema is one that this version knows; `revisions` stands for schema_revisions().

    Where a newer version has migrated the database, what its rows mean is for its own hubs to know.
    """
    return f"(SELECT version_num FROM alembic_version) = ANY({revisions}::text[])"


def is_no_extensions(of: str, catalogue: str = "pg_class") -> str:
    """SQL: whether the row `of` in PostgreSQL's catalogue is no part of an extension.

    What is, is not ours: a managed server may put some into every database.
    """
    return (
        f"NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalogue}'::regclass"
        f" AND d.objid = {of}.oid AND d.deptype = 'e')"
    )


def newer_schema_error() -> DatabaseError:
    """What is said where a newer version has made the schema."""
    return DatabaseError(
        f"database cannot be used: its schema is newer than {schema_head()}, the last one that this version "
        "of ConnectHub knows; start the version that made it, or restore a backup made by this one"
    )
