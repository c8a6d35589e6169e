"""What going runs show: stored while they go, so that any hub shows it and a LOST run keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from connecthub.storage.runs import in_order

if TYPE_CHECKING:
    from connecthub.storage.database import Database


@dataclass(frozen=True)
class Live:
    """What a going run has to show by now."""

    id: int
    run_log: str
    progress: str | None
    started_at: datetime | None
    meta: str


_LIVE = """
WITH shown AS (
    UPDATE job_logs l SET run_log = e.run_log, progress = e.progress::jsonb, started_at = e.started_at,
        meta = l.meta || e.meta::jsonb
    FROM unnest($2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
         AS e(id, run_log, progress, started_at, meta)
    WHERE l.id = e.id AND l.worker_id = $1 AND l.status IN ('RUNNING', 'LOST')
)
SELECT id FROM job_logs
WHERE id = ANY($7::bigint[]) AND worker_id = $1 AND status = 'RUNNING' AND cancel_requested_at IS NOT NULL
"""


async def store_live(db: Database, worker_id: UUID, live: Sequence[Live], held: Iterable[int]) -> set[int]:
    """Store what going runs show; the ids of those of `held` that a person wants to end.

    Asked by their ids: an index of what is RUNNING is long where a transaction elsewhere keeps vacuum from it.
    """
    shown = in_order(live)
    rows = await db.fetch(
        _LIVE,
        worker_id,
        [one.id for one in shown],
        [one.run_log for one in shown],
        [one.progress for one in shown],
        [one.started_at for one in shown],
        [one.meta for one in shown],
        list(held),
    )
    return {row["id"] for row in rows}
