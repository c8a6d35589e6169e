"""The hubs that are and were: each writes its own row, for pages and people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from connecthub.storage.jobs import Row

if TYPE_CHECKING:
    from connecthub.storage.database import Database


@dataclass(frozen=True)
class HubState:
    """What a hub says of itself: `taken` of its `places`, and the minute of its last whole tick.

    `changed_modules`: plugin modules whose files are no longer what it loaded; `key_ids`: the keys that it has.
    """

    worker_id: UUID
    name: str
    version: str
    places: int
    taken: int
    ticked_at: datetime | None
    changed_modules: list[str]
    key_ids: Sequence[str]


# One that was killed counts for two minutes more.
IS_ALIVE = "stopped_at IS NULL AND seen_at > clock_timestamp() - interval '2 minutes'"

_SEEN = """
INSERT INTO hubs (worker_id, name, version, places, taken, ticked_at, changed_modules, key_ids)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (worker_id) DO UPDATE
SET seen_at = clock_timestamp(), taken = excluded.taken, ticked_at = excluded.ticked_at,
    changed_modules = excluded.changed_modules, key_ids = excluded.key_ids
"""


async def store_seen(db: Database, state: HubState) -> None:
    """This hub is alive."""
    await db.execute(_SEEN, *(getattr(state, name) for name in HubState.__dataclass_fields__))


async def store_stopped(db: Database, worker_id: UUID) -> None:
    """This hub ends in order."""
    await db.execute(
        "UPDATE hubs SET seen_at = clock_timestamp(), stopped_at = clock_timestamp(), taken = 0"
        " WHERE worker_id = $1",
        worker_id,
    )


async def hubs_without_key(db: Database, key_id: str) -> list[str]:
    """The names of hubs that may be alive and do not have this key."""
    rows = await db.fetch(
        f"SELECT name FROM hubs WHERE {IS_ALIVE} AND NOT $1 = ANY(key_ids) ORDER BY name",
        key_id,
    )
    return [row["name"] for row in rows]


async def changed_code(db: Database) -> list[Row]:
    """The living hubs that run plugin code which is no longer what its files say: name, changed_modules."""
    return await db.fetch(
        f"SELECT name, changed_modules FROM hubs WHERE {IS_ALIVE} AND changed_modules <> '{{}}' ORDER BY name"
    )


_ALIVE = f"""
SELECT name, version, extract(epoch FROM clock_timestamp() - seen_at)::float8 AS seen_s,
       extract(epoch FROM clock_timestamp() - coalesce(ticked_at, started_at))::float8 AS ticked_s
FROM hubs WHERE {IS_ALIVE}
ORDER BY started_at
"""


async def alive_hubs(db: Database) -> list[Row]:
    """Hubs that may be alive: name, version, seconds since they were seen and ticked.

    The seconds are `seen_s` and `ticked_s`.
    """
    return await db.fetch(_ALIVE)
