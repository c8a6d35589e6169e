"""The list of runs as people search it: pages by key, a count with a cap, points of the scatter, rows of the CSV.

No statement looks at more than WINDOW rows, so that a page of a million runs stays quick whatever is asked: an
index finds a Job's runs, a rare status, a reason or a span of time, and the rest is looked through.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from connecthub.storage.jobs import Row

if TYPE_CHECKING:
    from connecthub.storage.database import Database

COUNTED = 10_000
WINDOW = 30_000
POINTS = 2_000
_PLOTTED = 10_000  # the newest matches that a scatter is made of
EXCERPT = "CASE WHEN char_length(message) > 300 THEN left(message, 300) || '…' ELSE message END AS excerpt"
_END_ROWS = 1000
_RARE = ("FAILURE", "LOST", "CANCELLED", "SKIPPED")


@dataclass(frozen=True)
class RunFilter:
    """What narrows the list; empty: everything. `since` and `until` are compared with queued_at."""

    job: str = ""
    status: str = ""
    reason: str = ""
    trigger: str = ""
    since: datetime | None = None
    until: datetime | None = None
    q: str = ""


@dataclass(frozen=True)
class RunPage:
    """One page of runs, newest first.

    `searched_to`: only the rows down to this id were looked at, and an older page goes on from there; None
    where the page is full or nothing is left.
    """

    rows: list[Row]
    has_newer: bool
    has_older: bool
    searched_to: int | None


@dataclass(frozen=True)
class RunCount:
    """How many match: exact, or more than `matches` (`is_capped`), or among the newest WINDOW (`is_window`)."""

    matches: int
    is_capped: bool
    is_window: bool


class _Query:
    """A filter as SQL: `found` is what an index answers, `looked` what is asked of each row it finds."""

    def __init__(self, wanted: RunFilter) -> None:
        self.values: list[Any] = []
        found: list[str] = []
        looked: list[str] = []
        if wanted.job:
            found.append(f"job_id = {self.value(wanted.job)}")
        for column in ("reason", "status", "trigger"):
            text = getattr(wanted, column)
            if text:
                indexed = column == "reason" or text in _RARE
                (found if indexed else looked).append(f"{column} = {self.value(text)}")
        if wanted.status in _RARE:
            found.append(f"status IN {_RARE}")  # what the partial index says
        limits = [
            f"queued_at {sign} {self.value(limit)}::timestamptz"
            for sign, limit in ((">=", wanted.since), ("<", wanted.until))
            if limit is not None
        ]
        if limits:
            span = " AND ".join(limits)
            looked.append(span)
            # Ids and queued_at rise together, but for inserts at the same moment: those near the ends say where
            # the span is among the ids, and `looked` decides.
            ids = f"(SELECT min(id) AS low, max(id) AS high FROM (SELECT id FROM job_logs WHERE {span}"
            ends = f"ORDER BY queued_at {{}} LIMIT {_END_ROWS}) s) e"
            found.append(f"id >= (SELECT low FROM {ids} {ends.format('ASC')})")
            if wanted.until is not None:
                found.append(f"id <= (SELECT high FROM {ids} {ends.format('DESC')})")
        if wanted.q:
            escaped = wanted.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            looked.append(f"message ILIKE {self.value(f'%{escaped}%')}")
        self._found, self.looked = found, " AND ".join(looked) or "true"

    def value(self, value: Any) -> str:
        """The place of one more value."""
        self.values.append(value)
        return f"${len(self.values)}"

    def window(self, limit: int, edge: str = "true", order: str = "DESC") -> str:
        """The rows that the index finds beyond `edge`, nearest first."""
        found = " AND ".join([*self._found, edge])
        return f"(SELECT * FROM job_logs WHERE {found} ORDER BY id {order} LIMIT {limit}) w"


_COLUMNS = f"""l.id, l.job_id, l.status, l.reason, l.trigger, l.attempt, l.scheduled_for, l.queued_at,
    l.started_at, l.finished_at, l.not_before, l.cancel_requested_at, l.triggered_by, l.lease_expires_at,
    {EXCERPT},
    CASE WHEN pg_column_size(l.result) < 20000 THEN l.result END AS result,
    j.name, j.timezone, r.max_attempts, r.timeout_s, clock_timestamp() AS now"""
_JOINS = "LEFT JOIN jobs j ON j.id = l.job_id LEFT JOIN job_revisions r ON r.id = l.revision_id"


async def list_runs(
    db: Database, wanted: RunFilter, size: int, *, before: int | None = None, after: int | None = None
) -> RunPage:
    """At most `size` runs with an id below `before`, or the nearest above `after`; newest first."""
    if after is not None:
        rows = await _page(db, wanted, size + 1, after, ascending=True)
        return RunPage(rows[:size][::-1], len(rows) > size, bool(rows), None)
    rows = await _page(db, wanted, size + 1, before, ascending=False)
    if len(rows) > size:
        return RunPage(rows[:size], before is not None, True, None)
    _, low = await _look(db, wanted, WINDOW, before)
    return RunPage(rows, before is not None, low is not None, low)


async def _page(
    db: Database, wanted: RunFilter, size: int, edge: int | None, *, ascending: bool
) -> list[Row]:
    query = _Query(wanted)
    sign, order = (">", "ASC") if ascending else ("<", "DESC")
    beyond = "true" if edge is None else f"id {sign} {query.value(edge)}::bigint"
    page = (
        f"SELECT * FROM {query.window(WINDOW, beyond, order)} WHERE {query.looked}"
        f" ORDER BY id {order} LIMIT {query.value(size)}"
    )
    return await db.fetch(f"SELECT {_COLUMNS} FROM ({page}) l {_JOINS} ORDER BY l.id {order}", *query.values)


async def _look(db: Database, wanted: RunFilter, limit: int, before: int | None) -> tuple[int, int | None]:
    """How many of the nearest `limit` rows match, and the lowest id of these rows if there may be more."""
    query = _Query(wanted)
    beyond = "true" if before is None else f"id < {query.value(before)}::bigint"
    row = await db.fetchrow(
        f"SELECT count(*) FILTER (WHERE {query.looked}) AS matches, count(*) AS seen, min(id) AS low"
        f" FROM {query.window(limit, beyond)}",
        *query.values,
    )
    assert row is not None  # noqa: S101 - aggregates always give a row
    return row["matches"], row["low"] if row["seen"] >= limit else None


async def count_runs(db: Database, wanted: RunFilter) -> RunCount:
    """How many runs match, counted no further than COUNTED."""
    is_plain = _Query(wanted).looked == "true"
    matches, low = await _look(db, wanted, COUNTED + 1 if is_plain else WINDOW, None)
    return RunCount(min(matches, COUNTED), matches > COUNTED, not is_plain and low is not None)


_PLOT = """
WITH plotted AS (
    SELECT id, job_id, status, reason, at, CASE WHEN status <> 'SKIPPED' THEN greatest(
               extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float8, 0) END AS seconds
    FROM (SELECT *, coalesce(started_at, queued_at) AS at FROM {window} WHERE {looked} ORDER BY id DESC LIMIT {plotted}) p
), extent AS (SELECT count(*) AS total, min(at) AS low, max(at) AS high FROM plotted),
worst AS (
    SELECT DISTINCT ON (col) * FROM (
        SELECT p.*, CASE WHEN e.total <= {points} OR e.high = e.low THEN p.id
            ELSE floor(extract(epoch FROM p.at - e.low) / extract(epoch FROM e.high - e.low) * 999)::bigint END AS col
        FROM plotted p, extent e) c
    ORDER BY col, array_position(ARRAY['LOST', 'FAILURE', 'CANCELLED', 'RUNNING', 'SUCCESS', 'SKIPPED', 'QUEUED'],
                                 status), seconds DESC NULLS LAST
)
SELECT w.id, w.job_id, w.status, w.reason, w.at, w.seconds, e.total, e.low, e.high
FROM extent e LEFT JOIN worst w ON true ORDER BY w.at
"""


@dataclass(frozen=True)
class Scatter:
    """Points of time and duration, oldest first; of more than POINTS runs the worst of each pixel column."""

    points: list[Row]  # id, job_id, status, reason, at, seconds (None: did not run)
    total: int
    low: datetime | None
    high: datetime | None

    @property
    def is_thinned(self) -> bool:
        """Whether points were left out."""
        return self.total > POINTS

    @property
    def is_cut(self) -> bool:
        """Whether only the newest runs are drawn."""
        return self.total >= _PLOTTED


async def plot_runs(db: Database, wanted: RunFilter) -> Scatter:
    """The newest 10,000 runs that match, as a scatter."""
    query = _Query(wanted)
    rows = await db.fetch(
        _PLOT.format(window=query.window(WINDOW), looked=query.looked, plotted=_PLOTTED, points=POINTS),
        *query.values,
    )
    first = rows[0]
    points = [row for row in rows if row["id"] is not None]
    return Scatter(points, first["total"], first["low"], first["high"])


async def reasons_seen(db: Database) -> list[str]:
    """Every reason that a run has, found by hopping through the index."""
    rows = await db.fetch(
        "WITH RECURSIVE hop AS ("
        " (SELECT reason FROM job_logs WHERE reason IS NOT NULL ORDER BY reason LIMIT 1)"
        " UNION ALL SELECT (SELECT l.reason FROM job_logs l WHERE l.reason > hop.reason ORDER BY l.reason LIMIT 1)"
        " FROM hop WHERE hop.reason IS NOT NULL)"
        " SELECT reason FROM hop WHERE reason IS NOT NULL LIMIT 50"
    )
    return [row["reason"] for row in rows]
