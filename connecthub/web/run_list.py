"""The list of runs: filters from the URL, a page by key, the scatter, and the CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from connecthub.storage import run_lists
from connecthub.storage.database import Database
from connecthub.storage.jobs import Row
from connecthub.storage.run_lists import RunFilter, Scatter
from connecthub.web.charts import Point, scatter
from connecthub.web.live import Page, is_fragment, live_page
from connecthub.web.run_words import figures_text, has_failed_parts, one_line
from connecthub.web.times import clock, length
from connecthub.web.views import run_number
from connecthub.web.words import say, say_reason

SPANS = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
STATUSES = ("QUEUED", "RUNNING", "SUCCESS", "FAILURE", "LOST", "CANCELLED", "SKIPPED")
TRIGGERS = ("schedule", "manual", "retry", "api")
_SIZE = 50
_CSV_BATCH = 1000
_CSV_ROWS = 100_000
_CSV_COLUMNS = (
    "id", "job_id", "name", "status", "reason", "trigger", "attempt", "scheduled_for", "queued_at",
    "started_at", "finished_at", "duration_s", "triggered_by", "message",
)  # fmt: skip


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
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise HTTPException(400, "bad_time") from None


def _edge(text: str) -> int | None:
    return run_number(text) if text else None


class RunList:
    """All runs, as people search them."""

    def __init__(self, database: Database, page: Page) -> None:
        self._database, self._page = database, page

    def routes(self) -> list[BaseRoute]:
        """To be guarded by roles.NEEDED, by name; in front of the routes of all models."""
        return [
            Route("/joblogs/list", self.runs, name="runs"),
            Route("/joblogs/csv", self.csv, name="runs_csv"),
        ]

    async def runs(self, request: Request) -> Response:
        """One page of the runs that match."""
        asked, now, zone = request.query_params, datetime.now(UTC), request.state.zone
        wanted = read_filter(asked, zone, now)
        before, after = _edge(asked.get("before", "")), _edge(asked.get("after", ""))
        db = self._database
        found = await run_lists.list_runs(db, wanted, _SIZE, before=before, after=after)
        context: dict[str, Any] = {}
        if not is_fragment(request):  # rows stay true by themselves; figures are of the moment of opening
            plotted = await run_lists.plot_runs(db, wanted)
            context = {
                "scatter": plotted,
                "scatter_svg": _draw(request, plotted, wanted),
                "reasons": await run_lists.reasons_seen(db),
            }
            context["count"] = await run_lists.count_runs(db, wanted)
        return await live_page(
            self._page,
            request,
            "runs.html",
            found=found,
            wanted=wanted,
            active=_active(asked),
            local=_local(wanted, asked, zone),
            statuses=STATUSES,
            triggers=TRIGGERS,
            spans=tuple(SPANS),
            says=says,
            has_failed_parts=has_failed_parts,
            is_first=before is None and after is None,
            **context,
        )

    async def csv(self, request: Request) -> Response:
        """The runs that match, newest first, as CSV."""
        wanted = read_filter(request.query_params, request.state.zone, datetime.now(UTC))
        name = f"runs-{datetime.now(request.state.zone):%Y%m%d-%H%M%S}.csv"
        return StreamingResponse(
            self._csv_rows(wanted, request.state.zone),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def _csv_rows(self, wanted: RunFilter, zone: ZoneInfo) -> AsyncIterator[str]:
        # Excel takes a file without this mark for the system's own encoding.
        yield "\ufeff" + csv_line(_CSV_COLUMNS)
        before: int | None = None
        written = 0
        while written < _CSV_ROWS:
            found = await run_lists.list_runs(self._database, wanted, _CSV_BATCH, before=before)
            yield "".join(csv_line(_csv_values(row, zone)) for row in found.rows)
            written += len(found.rows)
            before = found.searched_to or (found.rows[-1]["id"] if found.rows and found.has_older else None)
            if before is None:
                return


def _csv_values(row: Row, zone: ZoneInfo) -> list[object]:
    took = row["finished_at"] - row["started_at"] if row["started_at"] and row["finished_at"] else None
    shown = {**row, "duration_s": took and f"{took.total_seconds():.3f}", "message": row["excerpt"]}
    return [
        value.astimezone(zone).isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
        for value in (shown[name] for name in _CSV_COLUMNS)
    ]


def csv_line(values: Any) -> str:
    """One line of CSV in which no cell is a formula to a spreadsheet."""
    line = io.StringIO()
    csv.writer(line).writerow([_defused(value) for value in values])
    return line.getvalue()


def _defused(value: object) -> object:
    if (isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@")) or str(value)[:1] in (
        "\t",
        "\r",
        "\n",
    ):
        return f"'{value}"
    return "" if value is None else value


def says(run: Row, language: str) -> str:
    """What a run says in one line of a list: its message, else the figures of its result."""
    return one_line(run["excerpt"]) or figures_text(run["result"], language)


def _active(asked: Mapping[str, str]) -> list[tuple[str, str]]:
    """The filters in force, each with its value."""
    names = ("job", "search", "status", "reason", "trigger", "span", "from", "to", "q")
    return [(name, asked[name]) for name in names if asked.get(name, "").strip()]


def _local(wanted: RunFilter, asked: Mapping[str, str], zone: ZoneInfo) -> dict[str, str]:
    """The span as the fields for times show it, and as fixed times for a link."""
    shown = {}
    for name, moment in (("from", wanted.since), ("to", wanted.until)):
        local = moment.astimezone(zone).replace(tzinfo=None) if moment else None
        shown[name] = local.isoformat(timespec="minutes") if local and not asked.get("span") else ""
    return shown


def _draw(request: Request, plotted: Scatter, wanted: RunFilter) -> Markup | None:
    if plotted.low is None or plotted.high is None or len(plotted.points) < 2:
        return None
    language, zone = request.state.language, request.state.zone
    now = datetime.now(UTC)
    points = []
    for row in plotted.points:
        status = say(language, f"status.{row['status']}")
        reason = f" {say_reason(language, row['reason'])}" if row["reason"] else ""
        took = "" if row["seconds"] is None else f" · {length(row['seconds'], language)}"
        title = f"{row['job_id']} #{row['id']} · {status}{reason} · {clock(row['at'], now, zone)}{took}"
        points.append(
            Point(row["at"], row["seconds"], row["status"], title, f"/admin/joblogs/details/{row['id']}")
        )
    low, high = plotted.low, plotted.high
    if wanted.since is not None and not plotted.is_cut:
        low, high = min(low, wanted.since), max(high, wanted.until or now)
    label = say(language, "scatter", n=f"{plotted.total:,}")
    return scatter(points, low, high, label, lambda seconds: length(seconds, language).replace(".0", ""))
