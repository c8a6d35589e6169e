"""What the database tells about the key of its secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from connecthub.storage import audit

if TYPE_CHECKING:
    from connecthub.storage.audit import Actor
    from connecthub.storage.database import Connected, Database
    from connecthub.storage.jobs import Row


async def stored_tokens(db: Database | Connected) -> list[str]:
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


_BATCH = 50  # Jobs, with all their revisions
_TOKENS = """
SELECT job_id, secret_cfg, bool_or(of_job) AS of_job, count(*) FILTER (WHERE NOT of_job) AS revisions FROM (
    SELECT job_id, secret_cfg, false AS of_job FROM job_revisions WHERE job_id = ANY($1::text[])
    UNION ALL SELECT id, secret_cfg, true FROM jobs WHERE id = ANY($1::text[])
) t WHERE secret_cfg <> '' GROUP BY job_id, secret_cfg ORDER BY job_id
"""


async def all_tokens(db: Database) -> AsyncIterator[list[Row]]:
    """All secrets, in batches: job_id, secret_cfg, whether the Job itself has it (`of_job`), how many revisions."""
    last = ""
    while True:
        # Each Job has a revision, and a revision may outlive its Job.
        rows = await db.fetch(
            f"SELECT DISTINCT job_id FROM job_revisions WHERE job_id > $1 ORDER BY job_id LIMIT {_BATCH}",
            last,
        )
        if not rows:
            return
        yield await db.fetch(_TOKENS, [row["job_id"] for row in rows])
        last = rows[-1]["job_id"]


_RENEW = """
UPDATE {table} t SET secret_cfg = c.new
FROM unnest($1::text[], $2::text[], $3::text[]) AS c (job_id, old, new)
WHERE t.{job_id} = c.job_id AND t.secret_cfg = c.old
"""


async def renew_tokens(db: Database, changes: Sequence[tuple[str, str, str]]) -> None:
    """Write the same secrets anew: (job_id, old token, new token); what was changed meanwhile stays."""
    columns = [list(column) for column in zip(*changes, strict=True)]
    async with db.transaction() as connection:
        await connection.execute("SELECT set_config('connecthub.rotation', 'on', true)")
        await connection.execute(_RENEW.format(table="job_revisions", job_id="job_id"), *columns)
        # Last, because the tick passes over a Job that is locked.
        await connection.execute(_RENEW.format(table="jobs", job_id="id"), *columns)


async def replace_canary(db: Database, canary: str) -> None:
    """Leave a token of the newest key in the place of the one that is there."""
    await db.execute("UPDATE hub_state SET key_canary = $1 WHERE key_canary IS NOT NULL", canary)


async def is_recorded(db: Database, action: str, key_id: str) -> bool:
    """Whether the audit tells that this was done to the key."""
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM audit WHERE action = $1 AND object = $2)", action, key_id
        )
    )


async def record(db: Database, action: str, key_id: str, actor: Actor) -> None:
    """Write into the audit what was done to keys."""
    async with db.transaction() as connection:
        await audit.record(connection, actor.username, action, key_id, actor.address)
