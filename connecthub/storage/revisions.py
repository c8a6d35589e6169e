"""What the engine runs: definitions by the revisions that hold them, which never change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connecthub.storage.database import Database


@dataclass(frozen=True, slots=True)
class Definition:
    """What a revision says of how to run its Job; JSON as text."""

    id: int
    handler_path: str
    public_cfg: str
    secret_cfg: str | None
    timeout_s: int | None
    max_attempts: int
    retry_delays: list[int]
    rerun_lost: bool


async def definitions(db: Database, revision_ids: Sequence[int]) -> dict[int, Definition]:
    """The definitions that these revisions hold, by revision id."""
    rows = await db.fetch(
        "SELECT id, handler_path, public_cfg, secret_cfg, timeout_s, max_attempts, retry_delays, rerun_lost"
        " FROM job_revisions WHERE id = ANY($1::bigint[])",
        revision_ids,
    )
    return {row["id"]: Definition(**dict(row)) for row in rows}
