"""What the database tells about the key of its secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connecthub.storage.database import Database


async def stored_tokens(db: Database) -> list[str]:
    """The canary that an earlier start left, or where there is none some of the secrets; empty: no secrets."""
    canary = await db.fetchval("SELECT key_canary FROM hub_state")
    if canary is not None:
        return [canary]
    rows = await db.fetch(
        "SELECT secret_cfg FROM jobs WHERE secret_cfg <> ''"
        " UNION SELECT secret_cfg FROM job_revisions WHERE secret_cfg <> '' LIMIT 20"
    )
    return [row["secret_cfg"] for row in rows]


async def store_canary(db: Database, canary: str) -> None:
    """Leave a token that tells later starts whether their key fits; the first one stays."""
    await db.execute("UPDATE hub_state SET key_canary = $1 WHERE key_canary IS NULL", canary)
