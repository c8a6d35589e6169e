"""The model view of Jobs: the list with its states, and the page of one Job with its tabs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

from sqladmin.pagination import Pagination
from starlette.exceptions import HTTPException
from starlette.requests import Request

from connecthub import cron
from connecthub.definitions.check import secrets_of
from connecthub.definitions.differences import Change, differences, last_changed
from connecthub.definitions.fields import fields_of
from connecthub.errors import ScheduleError
from connecthub.plugins.discover import Catalogue, Found
from connecthub.security.vault import Vault
from connecthub.storage.hubs import changed_code
from connecthub.storage.job_history import facts_at
from connecthub.storage.job_pages import (
    SORTS,
    STATES,
    JobFilter,
    all_tags,
    count_jobs,
    disabled_by,
    has_many_jobs,
    job_health,
    jobs_again,
    list_jobs,
    list_revisions,
    newest_runs,
    read_revision,
    secret_revisions,
)
from connecthub.storage.jobs import Row, read_job
from connecthub.storage.models import Job
from connecthub.web.job_charts import bars
from connecthub.web.job_schedule import schedule, wrong_schedule
from connecthub.web.job_why import answer
from connecthub.web.live import is_fragment
from connecthub.web.shared import MANY_JOBS, Shared
from connecthub.web.times import zone_named
from connecthub.web.views import HubView, edge

Revision = tuple[Row, list[Change] | None]

TABS = ("overview", "configuration", "revisions", "why")
_DOTS = 20
_LISTS = 20  # pages of the list that are kept
_BARS = 60
_LATEST = 10
_REVISIONS = 50
_FIRES = 10
_INT4 = 2**31 - 1


@dataclass
class JobList(Pagination):
    """One page of Jobs: their newest runs, who disabled them, and how many there are in each state."""

    wanted: JobFilter = field(default_factory=JobFilter)
    sort: str = "failing"
    counts: dict[str, int] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    runs: dict[str, list[Row]] = field(default_factory=dict)
    disabled: dict[str, Row] = field(default_factory=dict)
    found: Found = field(default_factory=Found)

    @property
    def is_filtered(self) -> bool:
        """Whether the filter could be why a Job is missing."""
        return self.wanted != JobFilter()


class _Asked(NamedTuple):
    """What a list is asked for."""

    wanted: JobFilter
    sort: str
    page: int
    size: int


_Listed = tuple[Sequence[Row], dict[str, int], int]


class JobAdmin(HubView, model=Job):
    """Jobs: the list, and a Job with its tabs."""

    column_list: ClassVar[list[Any]] = [Job.id, Job.name, Job.enabled, Job.cron_expr, Job.next_run_at]
    column_details_list = column_list
    form_columns: ClassVar[list[Any]] = [Job.id]
    list_template = "jobs.html"
    details_template = "job.html"
    catalogue: ClassVar[Catalogue]
    vault: ClassVar[Vault]
    kept_days: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self._lists: dict[_Asked, Shared[_Listed]] = {}

    async def list(self, request: Request) -> Pagination:
        """One page of the Jobs that the URL asks for."""
        wanted, sort = asked(request)
        size = min(
            max(self.validate_page_number(request.query_params.get("pageSize"), self.page_size), 1), 100
        )
        page = max(self.validate_page_number(request.query_params.get("page"), 1), 1)
        rows, counts, page = await self._listed(request, _Asked(wanted, sort, page, size))
        listed = JobList(rows=[*rows], page=page, page_size=size, count=counts[wanted.state])
        listed.wanted, listed.sort, listed.counts = wanted, sort, counts
        listed.tags = await all_tags(self.database)
        listed.runs = await newest_runs(self.database, [row["id"] for row in rows], _DOTS)
        listed.disabled = await disabled_by(self.database, [row["id"] for row in rows if not row["enabled"]])
        if not rows and not listed.is_filtered:
            listed.found = await self.catalogue.found()
        return listed

    async def _listed(self, request: Request, what: _Asked) -> _Listed:
        """The rows, the counts and the number of the page that is there.

        A page that asks by itself gets its rows as they are now; which ones they are may be half a minute old
        where there are many Jobs.
        """
        shared = self._lists.pop(what, None) or Shared(lambda: self._read_list(what), good_s=15)
        self._lists = {**dict(list(self._lists.items())[-_LISTS:]), what: shared}
        fresh = not is_fragment(request) or not await has_many_jobs(self.database, MANY_JOBS)
        rows, counts, page = await shared.get(fresh=fresh)
        return rows if fresh else await jobs_again(self.database, [row["id"] for row in rows]), counts, page

    async def _read_list(self, what: _Asked) -> _Listed:
        counts = await count_jobs(self.database, what.wanted)
        page = min(what.page, Pagination.max_page(counts[what.wanted.state], what.size))
        rows = await list_jobs(self.database, what.wanted, what.sort, what.size, (page - 1) * what.size)
        return rows, counts, page

    async def get_object_for_details(self, request: Request) -> Any:
        """The Job's row with its revision, or None."""
        return await read_job(self.database, request.path_params["pk"])

    async def details_context(self, request: Request) -> dict[str, Any]:
        """What the tab of the URL shows."""
        job_id, now = request.path_params["pk"], datetime.now(UTC)
        job = await read_job(self.database, job_id)
        if job is None:  # deleted a moment ago
            raise HTTPException(404, "not_found")
        tab = request.query_params.get("tab", "")
        tab = tab if tab in TABS else "overview"
        handler = (await self.catalogue.found()).get(job["handler_path"])
        runs = (await newest_runs(self.database, [job_id], _BARS))[job_id]
        health = await job_health(self.database, job_id)
        context: dict[str, Any] = {"tab": tab, "tabs": TABS, "handler": handler, "runs": runs[:_LATEST]}
        context |= {"health": health, "bars": bars(runs, health["usual_s"])}
        context |= schedule(job["cron_expr"], job["timezone"], request.state.language, _FIRES)
        context["wrong_schedule"] = wrong_schedule(job, request.state.language)
        context["disabled"] = (await disabled_by(self.database, [job_id])).get(job_id)
        context["old_code"] = await self._old_code(job["handler_path"])
        if tab == "configuration":
            context["secret_keys"] = sorted(secrets_of(job, self.vault) or {})
            context["secrets_saved"] = last_changed(await secret_revisions(self.database, job_id), self.vault)
            context["fields"] = {one.name: one for one in fields_of(handler.params if handler else None)}
        elif tab == "revisions":
            context |= await self._revisions(request, job_id)
        elif tab == "why":
            context |= await self._why(request, job, now)
        return context

    async def _old_code(self, handler_path: str) -> Sequence[Row]:
        """The hubs for which files around this handler have changed since they were loaded."""
        package = handler_path.replace(":", ".").rsplit(".", 2)[0]
        return [
            hub
            for hub in await changed_code(self.database)
            if any(f"{module}.".startswith(f"{package}.") for module in hub["changed_modules"])
        ]

    async def _revisions(self, request: Request, job_id: str) -> dict[str, Any]:
        """A page of revisions, newest first, each with what it changed, and how the two ticked ones differ.

        There is no telling what the first one changed, nor the oldest that is kept.
        """
        asked = request.query_params
        before = edge(asked.get("before", "")) or _INT4
        rows = await list_revisions(self.database, job_id, _REVISIONS + 1, min(before, _INT4))
        changed: list[Revision] = [
            (row, None if older is None else differences(dict(older), dict(row), self.vault))
            for row, older in zip_longest(rows, rows[1:])
        ]
        ticked = sorted({int(text) for text in asked.getlist("of") if _is_number(text)})[:2]
        return {
            "revisions": changed[:_REVISIONS],
            "older": rows[_REVISIONS - 1]["number"] if len(rows) > _REVISIONS else None,
            "ticked": ticked,
            "compared": await self._compared(job_id, ticked),
        }

    async def _compared(self, job_id: str, ticked: Sequence[int]) -> tuple[Row, Row, Sequence[Change]] | None:
        """The two ticked revisions, older first, and how they differ."""
        rows = [await read_revision(self.database, job_id, number) for number in ticked]
        if len(rows) != 2 or rows[0] is None or rows[1] is None:
            return None
        return rows[0], rows[1], differences(dict(rows[0]), dict(rows[1]), self.vault)

    async def _why(self, request: Request, job: Row, now: datetime) -> dict[str, Any]:
        """The answer for the moment of the URL, and the fire times of late to pick from."""
        own = zone_named(job["timezone"]) or ZoneInfo("UTC")
        typed = request.query_params.get("zone") or own.key
        known = zone_named(typed)
        zone = known or own
        text = request.query_params.get("at", "")
        moment = _moment(text, zone)
        found = None
        if moment is not None and known:  # in which zone, nobody knows
            found = answer(await facts_at(self.database, job["id"], moment), moment, now, self.kept_days)
        try:
            span = cron.span(job["cron_expr"], job["timezone"], now - timedelta(days=62), now, keep=_FIRES)
            late = [at.astimezone(zone) for at in reversed(span.newest)]
        except ScheduleError:
            late = []
        local = (moment or now).astimezone(zone)
        return {
            "answer": found,
            "asked_at": local,
            "zone": zone.key,
            "late": late,
            "typed_zone": typed,
            "wrong_zone": known is None,
            "wrong_moment": bool(text and moment is None),
        }


def asked(request: Request) -> tuple[JobFilter, str]:
    """Filter and order that a URL names; what it names wrongly counts as not named."""
    query = request.query_params
    state, sort = query.get("state", ""), query.get("sort", "")
    wanted = JobFilter(query.get("q", "").strip(), query.get("tag", ""), state if state in STATES else "all")
    return wanted, sort if sort in SORTS else "failing"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _moment(text: str, zone: ZoneInfo) -> datetime | None:
    """The start of the minute that a `datetime-local` input names, in UTC."""
    try:
        local = datetime.fromisoformat(text)
        aware = local if local.tzinfo else local.replace(tzinfo=zone)
        moment = aware.astimezone(UTC).replace(second=0, microsecond=0)
    except (ValueError, OverflowError):
        return None
    return moment if 1970 <= moment.year < 9000 else None


# SQLAdmin makes its own identity while it makes the class.
JobAdmin.identity = "jobs"
