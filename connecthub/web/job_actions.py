"""What is done to Jobs beside editing: run, switch, clear, delete, restore; each after a page that tells."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from connecthub.definitions.check import Typed, merge_params
from connecthub.definitions.differences import differences, for_audit, overrides
from connecthub.definitions.fields import MISSING, fields_of, show
from connecthub.definitions.form import Errors, Reader
from connecthub.errors import NotFoundError, RefusedError
from connecthub.plugins.discover import Catalogue, Handler
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.storage.job_changes import (
    clear_runs,
    delete_jobs,
    restore_revision,
    switch_jobs,
    switched_jobs,
)
from connecthub.storage.job_pages import job_health, matching_ids, read_revision, weigh
from connecthub.storage.jobs import read_job
from connecthub.storage.requests import request_run
from connecthub.web.auth import actor
from connecthub.web.display import FLASH
from connecthub.web.fields import read_form, token_of
from connecthub.web.guard import wants_json
from connecthub.web.job_views import asked
from connecthub.web.paths import RunRoute, ids_in, segment
from connecthub.web.routes import RefusedRequest
from connecthub.web.views import pretty
from connecthub.words import say

Page = Callable[..., Awaitable[Response]]
ACTIONS = ("run", "enable", "disable", "clear", "delete")
_LIST = "/admin/jobs/list"
_NAMED = 5  # so many names are told, the others counted


class JobActions:
    """The routes of these actions. `page` renders a template in the frame."""

    def __init__(self, database: Database, vault: Vault, catalogue: Catalogue, page: Page) -> None:
        self._database, self._vault, self._catalogue, self._page = database, vault, catalogue, page

    def routes(self) -> list[BaseRoute]:
        """A confirmation is a GET that changes nothing; what it asks for is a POST."""
        post, both = ["POST"], ["GET", "POST"]
        return [
            # First: a Job that came by SQL may be called "delete", and running it must delete no other.
            RunRoute("/jobs/{job_id:job}/run", self.run, name="run", methods=both),
            Route("/jobs-bulk/confirm", self.confirm, name="job_confirm"),
            Route("/jobs-bulk/run", self.run_many, name="job_run_many", methods=post),
            Route("/jobs-bulk/enable", self.enable, name="job_enable", methods=post),
            Route("/jobs-bulk/disable", self.disable, name="job_disable", methods=post),
            Route("/jobs-bulk/clear", self.clear, name="job_clear", methods=post),
            Route("/jobs-bulk/delete", self.delete, name="job_delete", methods=post),
            Route("/jobs/delete/{pk:job}", self.delete, name="delete", methods=post),
            Route("/jobs/restore/{number:int}/{pk:job}", self.restore, name="job_restore", methods=both),
        ]

    async def confirm(self, request: Request) -> Response:
        """What an action would do to the Jobs of the URL: `id`s, or `all=1` with the list's filter."""
        action = request.query_params.get("action", "")
        if action not in ACTIONS:
            raise HTTPException(400, "bad_request")
        ids = ids_in("\n".join(request.query_params.getlist("id")))
        if request.query_params.get("all") == "1":
            ids = await matching_ids(self._database, asked(request)[0])
        if action == "run" and len(ids) == 1:
            return RedirectResponse(f"/admin/jobs/{segment(ids[0])}/run", 303)
        back = request.query_params.get("back", _LIST)
        return await self._confirm_page(request, action, ids, back)

    async def _confirm_page(
        self, request: Request, action: str, ids: Sequence[str], back: str, status: int = 200, wrong: str = ""
    ) -> Response:
        weight = await weigh(self._database, ids)
        if ids and not weight.jobs and len(ids) == 1:
            raise _no_job(request, ids[0])
        one = weight.jobs[0]["id"] if len(weight.jobs) == 1 else None
        context = {
            "action": action,
            "weight": weight,
            "named": weight.jobs[:_NAMED],
            "more": max(len(weight.jobs) - _NAMED, 0),
            "word": one or str(len(weight.jobs)),
            "back": inside(back),
            "wrong": wrong,
        }
        return await self._page(request, "job_confirm.html", status, **context)

    async def enable(self, request: Request) -> Response:
        """Enable Jobs."""
        return await self._switch(request, True)

    async def disable(self, request: Request) -> Response:
        """Disable Jobs; their logs stay."""
        return await self._switch(request, False)

    async def _switch(self, request: Request, enabled: bool) -> Response:
        form = await read_form(request)
        undone = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", form.get("undo", ""))
        ids = _ids(form)
        if undone:
            span = int(undone[1]), int(undone[2])
            ids = await switched_jobs(self._database, span, not enabled, actor(request))
        changed = await switch_jobs(self._database, ids, enabled, actor(request))
        undo = f"{changed.entries[0]}-{changed.entries[-1]}" if changed.entries else ""
        return _back(form, "enabled" if enabled else "disabled", len(changed.job_ids), undo)

    async def run_many(self, request: Request) -> Response:
        """Start one run of each Job."""
        form = await read_form(request)
        ids = [row["id"] for row in (await weigh(self._database, _ids(form))).jobs]
        started = 0
        for job_id in ids:
            with suppress(NotFoundError):  # deleted a moment ago
                await request_run(self._database, job_id, actor=actor(request), token=token_of(form))
                started += 1
        return _back(form, "started", started)

    async def clear(self, request: Request) -> Response:
        """Delete the ended runs of Jobs; the Jobs stay, and so do runs that are going."""
        form = await read_form(request)
        return _back(form, "cleared", await clear_runs(self._database, _ids(form), actor(request)))

    async def delete(self, request: Request) -> Response:
        """Delete Jobs with their runs, where the id (or the number of Jobs) was typed and no run is going."""
        form = await read_form(request)
        ids = [request.path_params["pk"]] if "pk" in request.path_params else _ids(form)
        weight = await weigh(self._database, ids)
        if not weight.jobs:
            raise _no_job(request, ", ".join(ids))
        language = request.state.language
        word = weight.jobs[0]["id"] if len(weight.jobs) == 1 else str(len(weight.jobs))
        if weight.going:
            if wants_json(request.headers):
                raise RefusedRequest(409, say(language, "delete_refused"))
            return await self._confirm_page(request, "delete", ids, form.get("back", _LIST), 409)
        if form.get("typed", "").split() != word.split():  # no input holds a line break
            wrong = say(language, "error.typed", word=word)
            if wants_json(request.headers):
                raise RefusedRequest(400, wrong)
            return await self._confirm_page(request, "delete", ids, form.get("back", _LIST), 400, wrong)
        try:
            count = await delete_jobs(self._database, ids, actor(request))
        except RefusedError:
            raise RefusedRequest(409, say(language, "delete_refused")) from None
        return _back({**form, "back": inside(form.get("back", ""), without="/details/")}, "deleted", count)

    async def restore(self, request: Request) -> Response:
        """What saving an old revision again would change, or the save."""
        job = await read_job(self._database, request.path_params["pk"])
        if job is None:
            raise _no_job(request, request.path_params["pk"])
        number = request.path_params["number"]
        revision = await read_revision(self._database, job["id"], number) if number < 2**31 - 1 else None
        if revision is None:
            raise HTTPException(404, "not_found")
        changes = differences(dict(job), dict(revision), self._vault)
        refused = False
        if request.method == "POST":
            seen = (await read_form(request)).get("revision", "")
            refused = seen != str(job["revision_id"])
            if not refused and changes:
                detail = {"number": revision["number"], "changes": for_audit(changes)}
                try:
                    await restore_revision(
                        self._database,
                        job["id"],
                        revision["number"],
                        job["revision_id"],
                        actor(request),
                        detail,
                    )
                except RefusedError:
                    refused = True
            if not refused:
                said = "restored" if changes else "unchanged"
                return RedirectResponse(f"{details(job['id'])}?tab=revisions&said={said}", 303)
        context = {"job": job, "revision": revision, "changes": changes, "refused": refused}
        return await self._page(request, "job_restore.html", 409 if refused else 200, **context)

    async def run(self, request: Request) -> Response:
        """What running now would do, with the parameters for this one run; or the run."""
        job_id = request.path_params["job_id"]
        form = await read_form(request) if request.method == "POST" else None
        if form is not None and not _says_how(form):
            return await self._start(request, job_id, None, token_of(form))
        job = await read_job(self._database, job_id)
        if job is None:
            raise _no_job(request, job_id)
        handler = (await self._catalogue.found()).get(job["handler_path"])
        fields = fields_of(handler.params if handler else None)
        values, errors = {"public_cfg": pretty(job["public_cfg"])}, Errors()
        stored = {one.name: show(one, json.loads(job["public_cfg"]).get(one.name, MISSING)) for one in fields}
        typed = Typed.of({"params_base": job["public_cfg"], **(form or {})})
        if form is not None:
            values["public_cfg"] = form.get("public_cfg") or values["public_cfg"]
            public, errors = _for_once(values, handler, typed, request.state.language)
            if public is not None and not errors:
                if form.get("try") == "1" and handler is not None and handler.has_dry_run:
                    public["dry_run"] = True
                changed = overrides(typed.base, public)  # the Job may be another one since it was shown
                return await self._start(request, job_id, changed, token_of(form))
        weight = await weigh(self._database, [job_id])
        context = {
            "job": job,
            "weight": weight,
            "health": await job_health(self._database, job_id),
            "fields": fields,
            "stored": stored,
            "shown": stored | typed.params,
            "params_base": typed.params_base,
            "values": values,
            "errors": errors,
            "can_try": handler is not None and handler.has_dry_run,
            "now": datetime.now(UTC),
        }
        return await self._page(request, "job_run.html", 400 if errors else 200, **context)

    async def _start(
        self, request: Request, job_id: str, params: dict[str, Any] | None, token: UUID | None
    ) -> Response:
        try:
            run_id = await request_run(
                self._database, job_id, actor=actor(request), params=params, token=token
            )
        except NotFoundError:
            raise _no_job(request, job_id) from None
        if wants_json(request.headers):
            return JSONResponse({"run_id": run_id})
        return RedirectResponse(f"/admin/joblogs/details/{run_id}", 303)


def details(job_id: str) -> str:
    """The path of a Job's page."""
    return f"/admin/jobs/details/{segment(job_id)}"


def inside(path: str, without: str = "\n") -> str:
    """`path` where it is one of the pages of Jobs, else the list."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and ".." not in path
    return path if plain and path.startswith("/admin/jobs/") and without not in path else _LIST


def _says_how(form: dict[str, str]) -> bool:
    """Whether the run is to differ from what is stored."""
    return bool(form.get("public_cfg")) or "try" in form or any(name.startswith("p.") for name in form)


def _for_once(
    values: dict[str, str], handler: Handler | None, typed: Typed, language: str
) -> tuple[dict[str, Any] | None, Errors]:
    """The parameters that one run is to have, and what is wrong with them."""
    reader = Reader(values, language)
    public = merge_params(reader, handler, values, typed, language)
    for name, text in typed.params.items():
        # A run's own parameters are laid over the stored ones: what it lacks would be the stored value.
        if public is not None and not text.strip() and name in typed.base and name not in public:
            reader.wrong(f"p.{name}", say(language, "error.left_out"))
    return public, reader.errors


def _ids(form: dict[str, str]) -> list[str]:
    return ids_in(form.get("ids", ""))


def _back(form: dict[str, str], said: str, count: int, undo: str = "") -> Response:
    """Where the person came from, with what was done; `undo`: the entries of the audit that take it back."""
    url = urlsplit(inside(form.get("back", _LIST)))
    query = [(name, value) for name, value in parse_qsl(url.query) if name not in FLASH]
    query += [("said", said), ("n", str(count))]
    if undo:
        query.append(("undo", undo))
    return RedirectResponse(f"{url.path}?{urlencode(query)}", 303)


def _no_job(request: Request, job_id: str) -> RefusedRequest:
    return RefusedRequest(404, say(request.state.language, "no_job", id=job_id))
