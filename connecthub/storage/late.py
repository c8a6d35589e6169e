"""The places of ended runs: what a plugin leaves that returns after its run has ended, and what a hub leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from connecthub.storage.runs import in_order

if TYPE_CHECKING:
    from connecthub.storage.database import Database


class LateReturn(NamedTuple):
    """The place of an ended run is free now. `run_log` is None where its log is as it was stored."""

    id: int
    run_log: str | None
    meta: str


_LATE = """
UPDATE job_logs l SET lease_expires_at = NULL, run_log = coalesce(e.run_log, l.run_log), meta = l.meta || e.meta::jsonb
FROM unnest($2::bigint[], $3::text[], $4::text[]) AS e(id, run_log, meta)
WHERE l.id = e.id AND l.worker_id = $1 AND l.status NOT IN ('QUEUED', 'RUNNING')
"""


async def store_late(db: Database, worker_id: UUID, late: Sequence[LateReturn]) -> None:
    """Clear the leases of runs whose ends are stored, and store what came after. Harmless when repeated."""
    await db.execute(_LATE, worker_id, *zip(*in_order(late), strict=True))


async def clear_leases(db: Database, worker_id: UUID) -> None:
    """This hub ends: no ended run of it holds a place any more."""
    await db.execute(
        "UPDATE job_logs SET lease_expires_at = NULL"
        " WHERE worker_id = $1 AND lease_expires_at IS NOT NULL AND status NOT IN ('QUEUED', 'RUNNING')",
        worker_id,
    )
