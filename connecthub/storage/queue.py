"""How the queue stands, for whoever watches the hub from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connecthub.storage.database import Database

_DEPTH = """
SELECT (SELECT paused_at IS NOT NULL FROM hub_state) AS paused, count(*) AS depth,
       coalesce(extract(epoch FROM clock_timestamp() - min(coalesce(not_before, queued_at))), 0)::float AS age
FROM job_logs WHERE status = 'QUEUED' AND (not_before IS NULL OR not_before <= clock_timestamp())
"""


async def standing(db: Database) -> tuple[int, float, bool]:
    """How many runs are queued and due, how many seconds the first has waited, and whether all hubs are paused."""
    row = await db.fetchrow(_DEPTH)
    return (row["depth"], row["age"], row["paused"]) if row else (0, 0.0, False)


# Runs that wait for another one of their Job are no sign of trouble. In a FILTER the Jobs that go are read once:
# as a condition of its own it would become a join, and a plan made while nothing is queued thinks nothing of
# holding each queued run against all that are.
IS_FREE = "job_id NOT IN (SELECT o.job_id FROM job_logs o WHERE o.lease_expires_at IS NOT NULL)"
_LONGEST_WAIT = f"""
SELECT extract(epoch FROM clock_timestamp() - min(coalesce(not_before, queued_at)) FILTER (WHERE {IS_FREE}))::float
FROM job_logs WHERE status = 'QUEUED' AND (SELECT paused_at IS NULL FROM hub_state)
"""


async def longest_wait(db: Database) -> float | None:
    """For how many seconds the oldest run has waited that nothing holds back; None where there is none."""
    waited: float | None = await db.fetchval(_LONGEST_WAIT)
    return waited


async def is_read_only(db: Database) -> bool:
    """Whether nothing can be stored: a server that has just been promoted, or is being backed up."""
    return bool(await db.fetchval("SELECT current_setting('transaction_read_only')::boolean"))
