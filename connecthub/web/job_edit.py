"""The form of a Job: made, edited, and looked over while a person types."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import asyncpg
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from connecthub.config import Settings
from connecthub.definitions.check import Checked, Checker, Typed, beside_secret, secrets_of
from connecthub.definitions.differences import Change, both, differences, for_audit, last_changed
from connecthub.definitions.fields import MISSING, fields_of, json_object, show
from connecthub.definitions.form import MISFIRE, OVERLAP, Values, new_values, posted_values, stored_values
from connecthub.errors import NotFoundError, RefusedError
from connecthub.plugins.discover import Handler
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.storage.job_pages import job_health, revision_by_id, secret_revisions
from connecthub.storage.jobs import Row, create_job, read_job, update_job
from connecthub.storage.requests import request_run
from connecthub.web.auth import actor
from connecthub.web.fields import id_of, read_form, token_of
from connecthub.web.job_actions import details
from connecthub.web.job_schedule import schedule, zones
from connecthub.web.job_words import policies
from connecthub.web.routes import RefusedRequest
from connecthub.words import say

Page = Callable[..., Awaitable[Response]]
_FIRES = 5


class JobEditor:
    """The routes of the form. `page` renders a template in the frame, `part` one without it."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        vault: Vault,
        checker: Checker,
        page: Page,
        part: Callable[..., str],
    ) -> None:
        self._settings, self._database, self._vault = settings, database, vault
        self._checker, self._page, self._part = checker, page, part

    def routes(self) -> list[BaseRoute]:
        """Making, editing, and the preview, which changes nothing."""
        both = ["GET", "POST"]
        return [
            Route("/jobs/create", self.create, name="create", methods=both),
            Route("/jobs/edit/{pk:job}", self.edit, name="edit", methods=both),
            Route("/jobs/preview", self.preview, name="job_preview", methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """The form of a new Job, or the Job that it makes."""
        shown = new_values(self._settings.scheduler.timezone)
        if request.method != "POST":
            shown["handler_path"] = request.query_params.get("handler", "")
            return await self._form(request, Checked(shown), None, Typed.of({}))
        posted = await read_form(request)
        return await self._save(request, posted_values(posted, shown), posted, None)

    async def edit(self, request: Request) -> Response:
        """The form of a Job, or the Job as it was changed there."""
        job = await self._job(request, request.path_params["pk"])
        shown = stored_values(job)
        if request.method != "POST":
            return await self._form(request, Checked(shown), job, Typed.of({}))
        posted = await read_form(request)
        values = posted_values(posted, shown)
        values["id"] = shown["id"]
        return await self._save(request, values, posted, job)

    async def _job(self, request: Request, job_id: str) -> Row:
        job = await read_job(self._database, job_id)
        if job is None:
            raise RefusedRequest(404, say(request.state.language, "no_job", id=job_id))
        return job

    async def _save(
        self, request: Request, values: Values, posted: dict[str, str], job: Row | None
    ) -> Response:
        typed, language = Typed.of(posted), request.state.language
        if posted.get("do") == "fields":  # without JavaScript: the fields of another handler
            checked = Checked(values)
            _ask_secrets_again(checked, typed, language)
            return await self._form(request, checked, job, typed, status=200)
        if job is not None and posted.get("revision", str(job["revision_id"])) != str(job["revision_id"]):
            if await self._is_stored(values, typed, job, language):
                return await self._saved(request, job["id"], posted)
            return await self._conflict(request, values, posted, job)
        checked = await self._checker.check(values, typed, job, language)
        definition = checked.definition
        if definition is not None and not await self._store(request, checked, job):
            other = await self._job(request, definition.id)  # saved a moment ago
            if await self._is_stored(values, typed, other, language):
                return await self._saved(request, definition.id, posted)
            if job is not None:
                return await self._conflict(request, values, posted, other)
            checked.errors["id"] = [say(language, "error.taken")]
        if definition is None or checked.errors:
            _ask_secrets_again(checked, typed, language)
            return await self._form(request, checked, job, typed)
        said = "" if job is None or checked.changes else "?said=unchanged"
        return await self._saved(request, definition.id, posted, said)

    async def _is_stored(self, values: Values, typed: Typed, job: Row, language: str) -> bool:
        """Whether the Job is what was typed: a form that is sent twice has been saved by the first."""
        again = await self._checker.check(values, typed, job, language, load=False)
        return again.definition is not None and not again.changes

    async def _saved(self, request: Request, job_id: str, posted: dict[str, str], said: str = "") -> Response:
        if posted.get("then") == "run":
            run_id = await request_run(self._database, job_id, actor=actor(request), token=token_of(posted))
            return RedirectResponse(f"/admin/joblogs/details/{run_id}", 303)
        return RedirectResponse(details(job_id) + said, 303)

    async def _store(self, request: Request, checked: Checked, job: Row | None) -> bool:
        """Write the definition; what the database refuses joins the errors. False: somebody was first."""
        definition = checked.definition
        assert definition is not None  # noqa: S101 - the caller looked
        names = sorted({change.field for change in checked.changes})
        detail = {
            "changed": names,
            "secret_keys": checked.secret_keys,
            "changes": for_audit(checked.changes),
        }
        language = request.state.language
        try:
            if job is None:
                await create_job(self._database, definition, actor(request), detail)
            elif checked.changes:
                await update_job(self._database, definition, actor(request), detail, job["revision_id"])
        except NotFoundError:
            raise RefusedRequest(404, say(language, "no_job", id=definition.id)) from None
        except RefusedError:
            return False
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            text = say(language, "error.refused", text=type(error).__name__)
            checked.errors["public_cfg"] = [text]
        return True

    async def _conflict(self, request: Request, values: Values, posted: dict[str, str], job: Row) -> Response:
        """409: what somebody else saved. What was left alone takes the new values, what was typed stays."""
        base = await revision_by_id(self._database, job["id"], id_of(posted, "revision") or 0)
        stored = stored_values(job)
        changes: list[Change] = []
        if base is not None:
            changes = differences(dict(base), dict(job), self._vault)
            before = stored_values({**dict(base), "id": job["id"]})
            params = both(before["public_cfg"], values["public_cfg"], stored["public_cfg"])
            values = {name: stored[name] if text == before[name] else text for name, text in values.items()}
            values["public_cfg"] = params
        checked = Checked(values)
        typed = Typed.of(posted)
        _ask_secrets_again(checked, typed, request.state.language)
        return await self._form(request, checked, job, typed, status=409, meanwhile=changes)

    async def _form(
        self,
        request: Request,
        checked: Checked,
        job: Row | None,
        typed: Typed,
        status: int | None = None,
        meanwhile: list[Change] | None = None,
    ) -> Response:
        context = await self._parts(request, checked, job, typed)
        health = None if job is None else await job_health(self._database, job["id"])
        context |= {
            "values": _without_secrets(checked.values),
            "job": job,
            "health": health,
            "zones": zones(),
            "misfire": MISFIRE,
            "overlap": OVERLAP,
            "meanwhile": meanwhile,
        }
        status = status or (400 if checked.errors else 200)
        return await self._page(request, "job_form.html", status, **context)

    async def _parts(
        self, request: Request, checked: Checked, job: Row | None, typed: Typed
    ) -> dict[str, Any]:
        """What the form shows beside the plain fields, and what the preview shows anew."""
        found = await self._checker.catalogue.found()
        values = checked.values
        handler = found.get(values["handler_path"].strip())
        fields = fields_of(handler.params if handler else None)
        base = json_object(values["public_cfg"]) or {}
        wrong = {name[2:] for name in checked.errors if name.startswith("p.")}
        shown = {
            one.name: typed.params[one.name]
            if one.name in wrong and one.name in typed.params
            else show(one, base.get(one.name, MISSING))
            for one in fields
        }
        return {
            "found": found,
            "handler": handler,
            "fields": fields,
            "shown": shown,
            "params_base": json.dumps(base, ensure_ascii=False),
            "unknown_keys": [key for key in base if key not in shown] if fields else [],
            "errors": checked.errors,
            "values": values,
            "job": job,
            "policy_lines": _policy_lines(checked, request.state.language),
            **_schedule(values, request.state.language),
            **await self._secrets(job, handler, typed),
        }

    async def _secrets(self, job: Row | None, handler: Handler | None, typed: Typed) -> dict[str, Any]:
        """The rows of secrets; of what was typed only names and ticks, never a value."""
        stored = secrets_of(job, self._vault)
        saved = (
            last_changed(await secret_revisions(self._database, job["id"]), self._vault)
            if stored and job
            else {}
        )
        fields = {one.name: one for one in fields_of(handler.secrets if handler else None)}
        keys = dict.fromkeys([*fields, *(stored or {})])
        return {
            "secret_rows": [(key, fields.get(key), key in (stored or {}), saved.get(key)) for key in keys],
            "new_keys": [key for key in typed.secrets if key and key not in keys],
            "removed": typed.removed,
            "unreadable": stored is None,
        }

    async def preview(self, request: Request) -> Response:
        """The form looked over as it is now: cron in words, fires, fields, differences. Changes no row."""
        posted = await read_form(request)
        job = await read_job(self._database, posted.get("of", "")) if posted.get("of") else None
        shown = stored_values(job) if job else new_values(self._settings.scheduler.timezone)
        values = posted_values(posted, shown)
        typed = Typed.of(posted)
        checked = await self._checker.check(values, typed, job, request.state.language, load=False)
        parts = await self._parts(request, checked, job, typed)
        blocks = {
            name: self._part(request, "job_form_parts.html", part=name, **parts, changes=checked.changes)
            for name in ("schedule", "fields", "secrets", "about", "difference", "policies")
        }
        return JSONResponse({"blocks": blocks, "public_cfg": checked.values["public_cfg"],
                             "public_error": checked.errors.get("public_cfg", [])})  # fmt: skip


def _policy_lines(checked: Checked, language: str) -> list[str]:
    return policies(asdict(checked.definition), language) if checked.definition else []


def _ask_secrets_again(checked: Checked, typed: Typed, language: str) -> None:
    """Secrets that were typed well are gone all the same: the form says so."""
    again = [say(language, "error.secret_again")]
    if checked.values["secret_cfg"].strip() not in ("", "{}"):
        checked.errors.setdefault("secret_cfg", again)
    for key, value in typed.secrets.items():
        if value:
            checked.errors.setdefault(beside_secret(key), again)


def _schedule(values: Values, language: str) -> dict[str, Any]:
    """What stands beside the cron expression; nothing while none is typed."""
    expression = values["cron_expr"].strip()
    if not expression:
        return {"words": "", "fires": [], "wrong_schedule": ""}
    return schedule(expression, values["timezone"].strip(), language, _FIRES)


def _without_secrets(values: Values) -> Values:
    return {**values, "secret_cfg": "{}" if values["secret_cfg"].strip() == "{}" else ""}
