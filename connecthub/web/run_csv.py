"""Runs as CSV."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from zoneinfo import ZoneInfo

from connecthub.storage import run_lists
from connecthub.storage.database import Database
from connecthub.storage.jobs import Row
from connecthub.storage.run_lists import RunFilter

COLUMNS = (
    "id", "job_id", "name", "status", "reason", "trigger", "attempt", "scheduled_for", "queued_at",
    "started_at", "finished_at", "duration_s", "triggered_by", "message",
)  # fmt: skip
_BATCH = 1000
_MOST = 100_000


async def batches(db: Database, wanted: RunFilter, zone: ZoneInfo) -> AsyncIterator[list[list[object]]]:
    """The runs that match, newest first, at most 100,000, a thousand at a time."""
    before: int | None = None
    written = 0
    while written < _MOST:
        found = await run_lists.list_runs(db, wanted, _BATCH, before=before)
        yield [_values(row, zone) for row in found.rows]
        written += len(found.rows)
        before = found.searched_to or (found.rows[-1]["id"] if found.rows and found.has_older else None)
        if before is None:
            return


def _values(row: Row, zone: ZoneInfo) -> list[object]:
    took = row["finished_at"] - row["started_at"] if row["started_at"] and row["finished_at"] else None
    shown = {**row, "duration_s": took and f"{took.total_seconds():.3f}", "message": row["excerpt"]}
    return [
        value.astimezone(zone).isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
        for value in (shown[name] for name in COLUMNS)
    ]
