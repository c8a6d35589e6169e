"""The list of runs: filters from the URL, a page by key, and the scatter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request

from connecthub.storage import run_lists
from connecthub.storage.database import Database
from connecthub.storage.run_lists import RunFilter, Scatter
from connecthub.web.charts import Point, scatter
from connecthub.web.job_words import span
from connecthub.web.live import is_fragment
from connecthub.web.run_words import has_failed_parts
from connecthub.web.shared import Shared
from connecthub.web.times import clock, length
from connecthub.web.views import edge
from connecthub.words import say, say_reason

SPANS = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
STATUSES = ("QUEUED", "RUNNING", "SUCCESS", "FAILURE", "LOST", "CANCELLED", "SKIPPED")
TRIGGERS = ("schedule", "manual", "retry", "api")
_SIZE = 50


def read_filter(asked: Mapping[str, str], zone: ZoneInfo, now: datetime) -> RunFilter:
    """The filter in a query; 400 for a wrong value. Times without an offset are the reader's."""
    status, trigger = asked.get("status", ""), asked.get("trigger", "")
    span = asked.get("span", "")
    if (
        (status and status not in STATUSES)
        or (trigger and trigger not in TRIGGERS)
        or (span and span not in SPANS)
    ):
        raise HTTPException(400, "bad_filter")
    since, until = (_moment(asked.get(name, ""), zone) for name in ("from", "to"))
    if span:
        since, until = now - SPANS[span], None
    return RunFilter(
        job=asked.get("job", asked.get("search", "")).strip(),  # search: links of earlier versions
        status=status,
        reason=asked.get("reason", "").strip(),
        trigger=trigger,
        since=since,
        until=until,
        q=asked.get("q", "").strip(),
    )


def _moment(text: str, zone: ZoneInfo) -> datetime | None:
    if not text:
        return None
    try:
        local = datetime.fromisoformat(text)
        moment = (local if local.tzinfo else local.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise HTTPException(400, "bad_time") from None
    if not 1970 <= moment.year < 9000:  # the ends of the calendar do not exist in every zone
        raise HTTPException(400, "bad_time")
    return moment


class RunFigures:
    """What stands beside the rows of a list: the scatter, how many match, and every reason that a run has.

    Of all runs, where they are more than a scatter shows one by one, a reading is shared.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._of_all = Shared(lambda: self._read(RunFilter()), good_s=1)
        self._are_many = False

    async def get(self, wanted: RunFilter) -> dict[str, Any]:
        """`scatter`, `count` and `reasons`."""
        if wanted != RunFilter():
            return await self._read(wanted)
        figures = await self._of_all.get(fresh=not self._are_many)
        self._are_many = figures["scatter"].is_thinned
        return figures

    async def _read(self, wanted: RunFilter) -> dict[str, Any]:
        return {
            "scatter": await run_lists.plot_runs(self._database, wanted),
            "count": await run_lists.count_runs(self._database, wanted),
            "reasons": await run_lists.reasons_seen(self._database),
        }


async def list_context(db: Database, figures: RunFigures, request: Request) -> dict[str, Any]:
    """What a page of the runs that match shows."""
    asked, now, zone = request.query_params, datetime.now(UTC), request.state.zone
    wanted = read_filter(asked, zone, now)
    before, after = edge(asked.get("before", "")), edge(asked.get("after", ""))
    found = await run_lists.list_runs(db, wanted, _SIZE, before=before, after=after)
    context: dict[str, Any] = {}
    if not is_fragment(request):  # rows stay true by themselves; figures are of the moment of opening
        context = await figures.get(wanted)
        context = {**context, "drawing": _draw(request, context["scatter"], wanted)}
    return context | {
        "found": found,
        "wanted": wanted,
        "active": _active(asked),
        "local": _local(wanted, asked, zone),
        "statuses": STATUSES,
        "triggers": TRIGGERS,
        "spans": tuple(SPANS),
        "has_failed_parts": has_failed_parts,
        "is_first": before is None and after is None,
    }


def _active(asked: Mapping[str, str]) -> list[tuple[str, str]]:
    """The filters in force, each with its value."""
    names = ("job", "search", "status", "reason", "trigger", "span", "from", "to", "q")
    return [(name, asked[name]) for name in names if asked.get(name, "").strip()]


def _local(wanted: RunFilter, asked: Mapping[str, str], zone: ZoneInfo) -> dict[str, str]:
    """The span as the fields for times show it, and as fixed times for a link."""
    shown = {}
    beyond = wanted.until and wanted.until + timedelta(microseconds=999_999)  # fields hold whole seconds
    for name, moment in (("from", wanted.since), ("to", beyond)):
        local = moment.astimezone(zone).replace(tzinfo=None) if moment else None
        shown[name] = local.isoformat(timespec="seconds") if local and not asked.get("span") else ""
    return shown


@dataclass(frozen=True)
class _Drawing:
    """A scatter, and the span of time that it shows."""

    svg: Markup
    low: datetime
    high: datetime


def _draw(request: Request, plotted: Scatter, wanted: RunFilter) -> _Drawing | None:
    if plotted.low is None or plotted.high is None or len(plotted.points) < 2:
        return None
    language, zone = request.state.language, request.state.zone
    now = datetime.now(zone)
    words: dict[tuple[str, str | None], str] = {}
    points = []
    for row in plotted.points:
        job_id, status, reason, seconds = row["job_id"], row["status"], row["reason"], row["seconds"]
        if (status, reason) not in words:
            because = f" {say_reason(language, reason)}" if reason else ""
            words[status, reason] = say(language, f"status.{status}") + because
        took = "" if seconds is None else f" · {length(seconds, language)}"
        title = f"{job_id} #{row['id']} · {words[status, reason]} · {clock(row['at'], now, zone)}{took}"
        points.append(Point(row["at"], seconds, status, title, f"/admin/joblogs/details/{row['id']}"))
    low, high = plotted.low, plotted.high
    if wanted.since is not None and not plotted.is_cut:
        low, high = min(low, wanted.since), max(high, wanted.until or now)
    label = say(language, "scatter", n=plotted.total)
    svg = scatter(points, low, high, label, partial(span, language))
    return _Drawing(svg, low, high)
