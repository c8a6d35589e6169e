"""The hubs that are and were: each writes its own row, for pages and people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from connecthub.storage.database import Database


@dataclass(frozen=True)
class HubState:
    """What a hub says of itself: `taken` of its `places`, and the minute of its last whole tick."""

    worker_id: UUID
    name: str
    version: str
    places: int
    taken: int
    ticked_at: datetime | None


_SEEN = """
INSERT INTO hubs (worker_id, name, version, places, taken, ticked_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (worker_id) DO UPDATE
SET seen_at = clock_timestamp(), taken = excluded.taken, ticked_at = excluded.ticked_at
"""


async def store_seen(db: Database, state: HubState) -> None:
    """This hub is alive."""
    await db.execute(
        _SEEN, state.worker_id, state.name, state.version, state.places, state.taken, state.ticked_at
    )


async def store_stopped(db: Database, worker_id: UUID) -> None:
    """This hub ends in order."""
    await db.execute(
        "UPDATE hubs SET seen_at = clock_timestamp(), stopped_at = clock_timestamp(), taken = 0"
        " WHERE worker_id = $1",
        worker_id,
    )
