"""The audit: who did what to what, from where. Rows are added in the transaction of the change itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

    from connecthub.storage.database import Connected, Database

INSERT = "INSERT INTO audit (username, action, object, address, detail)"
_RECORD = f"{INSERT} VALUES ($1, $2, $3, $4, $5::jsonb) RETURNING id"
# Newest first; `$6`: only rows before this one, which is how pages go on without counting.
_READ = """
SELECT id, at, username, action, object, address, detail FROM audit
WHERE ($1::text IS NULL OR username = $1) AND ($2::text IS NULL OR action = $2 OR (right($2, 1) = '.' AND starts_with(action, $2)))
  AND ($3::text IS NULL OR object = $3)
  AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)
  AND ($6::bigint IS NULL OR id < $6)
ORDER BY id DESC LIMIT $7
"""


@dataclass(frozen=True)
class Actor:
    """Who does something, and from which address (None: from the command line)."""

    username: str
    address: str | None


@dataclass(frozen=True)
class AuditFilter:
    """Which rows: exact `username` and `object`, an `action` or all of a kind (`job.`), span from (in it) to (not in it)."""

    username: str | None = None
    action: str | None = None
    object: str | None = None
    begin: datetime | None = None
    end: datetime | None = None


async def record(
    connection: Connected,
    username: str,
    action: str,
    object: str,
    address: str | None,
    detail: dict[str, Any] | None = None,
) -> int:
    """Add one row; its id. `detail` must never hold a secret: of secret_cfg only the names of its keys."""
    text = json.dumps(detail or {}, ensure_ascii=False)
    return int(await connection.fetchval(_RECORD, username, action, object, address, text))


async def read_audit(
    db: Database, chosen: AuditFilter, *, before: int | None, limit: int
) -> list[asyncpg.Record]:
    """Rows newest first, at most `limit`, those with an id below `before`."""
    return await db.fetch(
        _READ,
        chosen.username,
        chosen.action,
        chosen.object,
        chosen.begin,
        chosen.end,
        before,
        limit,
    )
