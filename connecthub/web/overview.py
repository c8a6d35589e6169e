"""The overview: is everything all right, and if not, why?"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from connecthub.config_sections import RetentionSettings
from connecthub.storage import overview
from connecthub.storage.database import Database
from connecthub.storage.hubs import changed_code
from connecthub.storage.jobs import Row
from connecthub.storage.retention import last_pass
from connecthub.web.charts import Hour, bars, cell, strip, worst
from connecthub.web.display import link_to, next_fire
from connecthub.web.hours import HOUR, HourFigures
from connecthub.web.live import Page, live_page
from connecthub.web.shared import MANY_JOBS, Shared
from connecthub.words import say

_NO_TICK = timedelta(minutes=2)
_UP_NEXT = 8
_SPANS = {"24h": 24, "7d": 168}


@dataclass(frozen=True)
class Verdict:
    """The sentence on top: `level` is ok, warn or fail; `key` names the text, `values` fill it."""

    level: str
    key: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trouble:
    """What of the running runs needs a look."""

    slow: int
    overdue: int


def judge(state: Row, failing: int, trouble: Trouble) -> Verdict:
    """The first rule that holds, from the worst on; `state` as read_state() gives it."""
    now: datetime = state["now"]
    if state["paused_at"] is not None:
        return Verdict("warn", "verdict.paused", {"by": state["paused_by"]})
    if state["ticked_at"] is None:
        return Verdict("fail", "verdict.no_hub")
    if now - state["ticked_at"] > _NO_TICK:
        return Verdict("fail", "verdict.still", {"at": state["ticked_at"]})
    if state["waiting_since"] is not None and state["taken"] < state["places"]:
        return Verdict("fail", "verdict.still", {"at": state["waiting_since"]})
    if failing:
        return Verdict("fail", "verdict.failing", {"n": failing})
    if trouble.overdue:
        return Verdict("warn", "verdict.overdue", {"n": trouble.overdue})
    if trouble.slow:
        return Verdict("warn", "verdict.slow", {"n": trouble.slow})
    if state["places"] and state["taken"] >= state["places"]:
        return Verdict("warn", "verdict.full", {"n": state["queued"]})
    return Verdict("ok", "verdict.fine") if state["jobs"] else Verdict("ok", "verdict.empty")


def trouble_of(running: Sequence[Row]) -> Trouble:
    """Slow runs, and those past their timeout or ended with their code still going."""
    overdue = [run for run in running if is_overdue(run)]
    slow = [
        run for run in running if run not in overdue and run["slow_s"] and run["elapsed_s"] > run["slow_s"]
    ]
    return Trouble(len(slow), len(overdue))


def is_overdue(run: Row) -> bool:
    """Whether its code is still going although its time is over."""
    return run["status"] != "RUNNING" or bool(run["timeout_s"] and run["elapsed_s"] > run["timeout_s"])


def success_rate(hours: Sequence[Row]) -> float | None:
    """Successes among the runs that came to a result; None without any."""
    counts: Counter[str] = Counter()
    for row in hours:
        counts[row["status"]] += row["runs"]
    judged = counts["SUCCESS"] + counts["FAILURE"] + counts["LOST"]
    return counts["SUCCESS"] / judged if judged else None


def percent(share: float | None) -> str:
    """`98.7%`, never rounded up to 100% while one failed."""
    if share is None:
        return "—"
    return "100%" if share == 1 else f"{int(share * 1000) / 10:.1f}%"


class OverviewPages:
    """The first page of the admin."""

    def __init__(self, database: Database, kept: RetentionSettings, page: Page) -> None:
        self._database, self._kept, self._page = database, kept, page
        self._hours = HourFigures(database)
        self._failing = Shared(lambda: overview.failing_jobs(database), good_s=1)

    def routes(self) -> list[BaseRoute]:
        """To be guarded by roles.NEEDED, by name."""
        return [Route("/", self.overview, name="index")]

    async def overview(self, request: Request) -> Response:
        """Everything of it, or what has changed."""
        db, asked = self._database, request.query_params
        state = await overview.read_state(db)
        fresh = state["jobs"] < MANY_JOBS
        this_hour = state["now"].replace(minute=0, second=0, microsecond=0)
        failing, running, week, old_code, following, swept = await asyncio.gather(
            self._failing.get(fresh=fresh),
            overview.running_now(db),
            self._hours.week(this_hour, fresh=fresh),
            changed_code(db),
            overview.up_next(db, _UP_NEXT),
            last_pass(db),
        )
        # A shared reading may be of the hour before.
        week = [row for row in week if row["hour"] > this_hour - _SPANS["7d"] * HOUR]
        jobs = await overview.strip_jobs(db, [row["job_id"] for row in failing], asked.get("strips") == "all")
        cells = await self._hours.strips([job["id"] for job in jobs], this_hour, fresh=fresh)
        drawer = _Drawer(request, this_hour)
        fails = failing[0]["total"] if failing else 0
        return await live_page(
            self._page,
            request,
            "overview.html",
            state=state,
            verdict=judge(state, fails, trouble_of(running)),
            failing=failing,
            failing_total=fails,
            running=[_running(run) for run in running],
            running_total=running[0]["total"] if running else 0,
            old_code=old_code,
            next_fires=_soonest(following),
            **_by_the_hour(week, this_hour, _SPANS.get(asked.get("hours", ""), 24), drawer),
            strips=drawer.strips(jobs, cells),
            kept=self._kept,
            retention=swept,
        )


def _by_the_hour(week: Sequence[Row], this_hour: datetime, hours: int, drawer: _Drawer) -> dict[str, Any]:
    """Rates of day and week, the last `hours` drawn and counted; `since`: queries for what is behind."""
    begins = {count: this_hour - (count - 1) * HOUR for count in _SPANS.values()}
    day, asked = ([row for row in week if row["hour"] >= begins[count]] for count in (24, hours))
    return {
        "rates": (percent(success_rate(day)), percent(success_rate(week))),
        "since": {count: urlencode({"from": begin.isoformat()}) for count, begin in begins.items()},
        "hours": hours,
        "hour_chart": drawer.hours(asked, hours),
        "hour_counts": _totals(asked),
    }


def _soonest(jobs: Sequence[Row]) -> list[dict[str, Any]]:
    """The Jobs that fire next, a new one among them before the tick has seen it."""
    fires = [
        {
            **job,
            "at": next_fire(
                job["next_run_at"], True, job["cron_expr"], job["timezone"], job["schedule_from"]
            ),
        }
        for job in jobs
    ]
    return sorted((job for job in fires if job["at"]), key=lambda job: (job["at"], job["name"]))[:_UP_NEXT]


def _running(run: Row) -> dict[str, Any]:
    done = total = None
    told = json.loads(run["progress"]) if run["progress"] else {}
    if isinstance(told, dict):
        done, total = told.get("done"), told.get("total")
    share = done / total if done is not None and total else None
    if share is None and run["usual_s"]:
        expected = max(run["usual_s"], run["elapsed_s"])
        share, usual = run["elapsed_s"] / expected, run["usual_s"] / expected
    else:
        usual = None
    is_slow = bool(run["slow_s"] and run["elapsed_s"] > run["slow_s"])
    return {
        **run,
        "done": done,
        "of": total,
        "share": share,
        "usual": usual,
        "slow": is_slow,
        "overdue": is_overdue(run),
    }


def _totals(rows: Sequence[Row]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["status"]] += row["runs"]
    return counts


class _Drawer:
    """Draws figures by the hour in the reader's language and zone."""

    def __init__(self, request: Request, this_hour: datetime) -> None:
        self._language, self._zone, self._this_hour = request.state.language, request.state.zone, this_hour
        self._said: dict[frozenset[tuple[str, int]], str] = {}  # most hours of most Jobs are alike

    def hours(self, rows: Sequence[Row], count: int) -> str:
        """Columns of the last `count` hours; of more than two days in steps of six hours."""
        step = 1 if count <= 48 else 6
        counts: dict[int, Counter[str]] = defaultdict(Counter)
        for row in rows:
            back = round((self._this_hour - row["hour"]) / HOUR)
            counts[(count - 1 - back) // step][row["status"]] += row["runs"]
        first = self._this_hour - (count - 1) * HOUR
        columns = []
        for at in range(count // step):
            said, href = self._span(first + at * step * HOUR, step)
            columns.append(Hour(f"{said} {self._counts(counts[at])}", href, counts[at]))
        total = _totals(rows)
        return bars(columns, self._counts(total))

    def strips(self, jobs: Sequence[Row], rows: Sequence[Row]) -> list[dict[str, Any]]:
        """A strip of 24 hours for each Job; an hour without runs leads nowhere, and is drawn once for all."""
        by_job: dict[str, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        hours = [self._this_hour - (23 - at) * HOUR for at in range(24)]
        places = {hour: at for at, hour in enumerate(hours)}
        for row in rows:
            if row["hour"] in places:
                by_job[row["job_id"]][places[row["hour"]]][row["status"]] += row["runs"]
        spans = [self._span(hour, 1) for hour in hours]
        blank = [cell(at, 24, "", f"{said} {self._counts({})}") for at, (said, _) in enumerate(spans)]
        drawn = []
        for job in jobs:
            cells, total, of_job = list(blank), Counter[str](), quote(job["id"], safe="")
            for at, counts in by_job.get(job["id"], {}).items():
                said, href = spans[at]
                title = f"{said} {self._counts(counts)}"
                cells[at] = cell(at, 24, worst(list(counts)), title, f"{href}&job={of_job}")
                for status, runs in counts.items():
                    total[status] += runs
            drawn.append({**job, "strip": strip(cells, f"{job['name']}: {self._counts(total)}")})
        return drawn

    def _span(self, begin: datetime, step: int) -> tuple[str, str]:
        """What a mark of these hours says of when, and the list of runs behind it."""
        end = begin + step * HOUR
        since, until = begin.astimezone(self._zone), end.astimezone(self._zone)
        day = f"{since:%m-%d} " if step > 1 else ""  # a day's hours tell themselves apart
        said = f"{day}{since:%H:%M}–{until:%H:%M}"
        return said, link_to("/admin/joblogs/list", **{"from": begin.isoformat(), "to": end.isoformat()})

    def _counts(self, counts: Mapping[str, int]) -> str:
        if not counts:
            return say(self._language, "no_runs_then")
        key = frozenset(counts.items())
        if key not in self._said:
            parts = (f"{say(self._language, f'status.{status}')} {n:,}" for status, n in sorted(key))
            self._said[key] = " · ".join(parts)
        return self._said[key]
