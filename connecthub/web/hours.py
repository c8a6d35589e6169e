"""Counts of runs by the hour, kept from one question of a page to the next."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from connecthub.storage import overview
from connecthub.storage.database import Database
from connecthub.storage.jobs import Row
from connecthub.web.shared import Shared

HOUR = timedelta(hours=1)
_OPEN = 2  # the newest hours, which nearly all changes are in
_AGAIN = 4
_MANY_RUNS = 10_000  # in the newest hours: to count them at each question takes too long
_KEPT = 4  # sets of Jobs whose strips are kept

Read = Callable[[list[datetime]], Awaitable[list[Row]]]


class Hours:
    """The rows of the last `count` hours: of a million runs not all are counted at every question.

    The newest hours are read each time. A run that ends late or is cleared changes an hour that is long over:
    a few of those are read with them, in turn.
    """

    def __init__(self, read: Read, count: int) -> None:
        self._read, self._count = read, count
        self._rows: dict[datetime, list[Row]] = {}
        self._turn = 0
        self._reading = asyncio.Lock()

    async def rows(self, this_hour: datetime) -> list[Row]:
        """All rows, oldest hour first."""
        async with self._reading:
            wanted = [this_hour - n * HOUR for n in range(self._count)]
            self._turn = (self._turn + _AGAIN) % self._count
            again = {*wanted[:_OPEN], *wanted[self._turn : self._turn + _AGAIN]}
            asked = [hour for hour in wanted if hour in again or hour not in self._rows]
            fresh: dict[datetime, list[Row]] = defaultdict(list)
            for row in await self._read(asked):
                fresh[row["hour"]].append(row)
            for hour in asked:
                self._rows[hour] = fresh[hour]
            self._rows = {hour: self._rows[hour] for hour in reversed(wanted)}
            return [row for rows in self._rows.values() for row in rows]


class HourFigures:
    """What the overview counts: the week of all Jobs, and the day of each Job that it shows.

    Without `fresh`, and while the newest hours alone hold over ten thousand runs, a reading is shared.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._this_hour = datetime.min
        self._week = self._shared(lambda hours: overview.runs_per_hour(database, hours), 168)
        self._are_many = False
        self._strips: dict[tuple[str, ...], Shared[list[Row]]] = {}

    def _shared(self, read: Read, count: int) -> Shared[list[Row]]:
        hours = Hours(read, count)
        return Shared(lambda: hours.rows(self._this_hour), good_s=1)

    async def week(self, this_hour: datetime, *, fresh: bool) -> list[Row]:
        """hour, status, runs of the last 168 hours."""
        self._this_hour = this_hour
        rows = await self._week.get(fresh=fresh and not self._are_many)
        newest = this_hour - _OPEN * HOUR
        self._are_many = sum(row["runs"] for row in rows if row["hour"] > newest) > _MANY_RUNS
        return rows

    async def strips(self, job_ids: Sequence[str], this_hour: datetime, *, fresh: bool) -> list[Row]:
        """job_id, hour, status, runs of the last 24 hours."""
        self._this_hour = this_hour
        ids = tuple(sorted(job_ids))
        kept = self._strips.pop(ids, None)
        if kept is None:
            kept = self._shared(lambda hours: overview.strips(self._database, ids, hours), 24)
        self._strips = {**dict(list(self._strips.items())[1 - _KEPT :]), ids: kept}
        return await kept.get(fresh=fresh and not self._are_many)
