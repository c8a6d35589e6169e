"""The admin: SQLAdmin's lists and pages in our templates, and forms of our own for what changes something."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import asyncpg
from sqladmin import Admin
from sqladmin.templating import Jinja2Templates
from sqlalchemy.ext.asyncio import async_sessionmaker
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from connecthub.config import Settings
from connecthub.errors import NotFoundError, RefusedError
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.storage.jobs import Row, create_job, delete_job, read_job, update_job
from connecthub.web import display
from connecthub.web.audit import AuditRoutes
from connecthub.web.auth import actor
from connecthub.web.fields import read_form
from connecthub.web.form import (
    MISFIRE,
    OVERLAP,
    Checked,
    Values,
    check_form,
    new_values,
    posted_values,
    stored_values,
)
from connecthub.web.frame import FrameRoutes
from connecthub.web.guard import NO_DATABASE, wants_json
from connecthub.web.overview import OverviewPages
from connecthub.web.people import People
from connecthub.web.roles import guarded
from connecthub.web.routes import RefusedRequest, RunActions
from connecthub.web.run_list import RunList
from connecthub.web.run_pages import RunPages
from connecthub.web.users import UserAdmin, UserRoutes
from connecthub.web.views import HubView, JobAdmin, JobLogAdmin
from connecthub.web.words import LANGUAGES, say

log = logging.getLogger(__name__)

Errors = dict[str, list[str]]

_HERE = Path(__file__).parent


class HubAdmin(Admin):
    """SQLAdmin with our routes only: what we do not offer (export, import, files, look-ups) is not there."""

    def __init__(self, app: Starlette, settings: Settings, database: Database, vault: Vault) -> None:
        self._settings, self._database, self._vault = settings, database, vault
        super().__init__(
            app,
            session_maker=async_sessionmaker(database.engine, expire_on_commit=False),
            title=settings.app.name,
            templates_dir=str(_HERE / "templates"),
        )
        HubView.database = database
        self.add_view(JobAdmin)
        self.add_view(JobLogAdmin)
        self.add_view(UserAdmin)
        self.admin.router.routes = guarded(self._routes())
        # A redirect to the same path with a slash would name the host that the request claims.
        self.admin.router.redirect_slashes = False
        self.admin.exception_handlers = {
            HTTPException: self._on_http_error,
            RefusedRequest: self._on_refused,
            **dict.fromkeys(NO_DATABASE, self._on_no_database),
            Exception: self._on_crash,
        }

    def init_templating_engine(self) -> Jinja2Templates:
        """SQLAdmin's templates behind ours, with what ours need."""
        templates = super().init_templating_engine()
        display.install(templates.env)
        return templates

    def _routes(self) -> Sequence[BaseRoute]:
        runs = RunActions(self._database)
        post = ["POST"]
        both = ["GET", "POST"]
        return [
            Mount("/statics", StaticFiles(packages=["sqladmin"]), name="statics"),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
            *OverviewPages(self._database, self.page).routes(),
            *RunList(self._database, self.page).routes(),
            *RunPages(self._database, self._vault, self.page).routes(),
            *FrameRoutes(self._database, self.page).routes(),
            *AuditRoutes(self._database, self.page).routes(),
            *UserRoutes(self._database, self.page, self._user_view()).routes(),
            *People(self._settings, self._database, self.page).routes(),
            Route("/jobs/create", self.create, name="create", methods=both),
            Route("/jobs/edit/{pk:path}", self.edit, name="edit", methods=both),
            Route("/jobs/delete/{pk:path}", self.delete, name="delete", methods=post),
            Route("/jobs/{job_id:path}/run", runs.run, name="run", methods=post),
            Route("/joblogs/{log_id}/retry", runs.retry, name="retry", methods=post),
            Route("/joblogs/{log_id}/cancel", runs.cancel, name="cancel", methods=post),
            Route("/{identity}/list", self.list, name="list"),
            Route("/{identity}/details/{pk:path}", self.details, name="details"),
        ]

    def _user_view(self) -> UserAdmin:
        return next(view for view in self.views if isinstance(view, UserAdmin))

    async def page(self, request: Request, name: str, status: int = 200, **context: Any) -> Response:
        """The template `name` in the frame."""
        return await self.templates.TemplateResponse(request, name, context, status_code=status)

    async def list(self, request: Request) -> Response:
        """One page of a list."""
        view = self._find_model_view(request.path_params["identity"])
        if not view.is_accessible(request):
            raise HTTPException(403)
        pagination = await view.list(request)
        return await self.page(request, view.list_template, pagination=pagination, model_view=view)

    async def create(self, request: Request) -> Response:
        """The form of a new Job, or the Job that it makes."""
        shown = new_values(self._settings.scheduler.timezone)
        if request.method == "GET":
            return await self._form_page(request, shown, None)
        return await self._save(request, shown, None)

    async def edit(self, request: Request) -> Response:
        """The form of a Job, or the Job as it was changed there."""
        job = await read_job(self._database, request.path_params["pk"])
        if job is None:
            raise _no_job(request)
        shown = stored_values(job)
        if request.method == "GET":
            return await self._form_page(request, shown, job)
        return await self._save(request, shown, job)

    async def delete(self, request: Request) -> Response:
        """Delete a Job, unless a run of it is going."""
        job_id, language = request.path_params["pk"], request.state.language
        try:
            await delete_job(self._database, job_id, actor(request))
        except NotFoundError:
            raise _no_job(request) from None
        except RefusedError:
            raise RefusedRequest(409, say(language, "delete_refused")) from None
        return RedirectResponse("/admin/jobs/list", 303)

    async def _save(self, request: Request, shown: Values, job: Row | None) -> Response:
        values = posted_values(await read_form(request), shown)
        if job is not None:
            values["id"] = shown["id"]
        language = request.state.language
        checked = await check_form(values, job, self._settings, self._vault, language)
        if checked.definition is not None:
            await self._store(request, checked, shown, values, job)
        if checked.errors:
            if values["secret_cfg"].strip() and "secret_cfg" not in checked.errors:
                checked.errors["secret_cfg"] = [say(language, "error.secret_again")]
            return await self._form_page(request, values, job, checked.errors)
        return RedirectResponse(f"/admin/jobs/details/{display.segment(values['id'])}", 303)

    async def _store(
        self, request: Request, checked: Checked, shown: Values, values: Values, job: Row | None
    ) -> None:
        """Write the definition; what the database refuses joins the errors."""
        if checked.definition is None:
            return
        changed = sorted(name for name in values if values[name] != shown[name] and name != "secret_cfg")
        detail = {"changed": changed, "secret_keys": checked.secret_keys}
        store = create_job if job is None else update_job
        language = request.state.language
        try:
            await store(self._database, checked.definition, actor(request), detail)
        except NotFoundError:
            raise _no_job(request) from None
        except RefusedError:
            checked.errors["id"] = [say(language, "error.taken")]
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            text = say(language, "error.refused", text=type(error).__name__)
            checked.errors["public_cfg"] = [text]

    async def _form_page(
        self, request: Request, values: Values, job: Row | None, errors: Errors | None = None
    ) -> Response:
        return await self.page(
            request,
            "job_form.html",
            400 if errors else 200,
            values={**values, "secret_cfg": ""},
            errors=errors or {},
            job=job,
            misfire=MISFIRE,
            overlap=OVERLAP,
        )

    async def _on_http_error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else ""
        # Ours name a text as their detail, Starlette's and SQLAdmin's do not.
        fallback = {404: "not_found", 405: "not_allowed"}.get(status, "bad_request")
        key = detail if detail in LANGUAGES["en"] else fallback
        return await self._error(request, status, say(request.state.language, key))

    async def _on_refused(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, RefusedRequest):
            raise error
        return await self._error(request, error.status, error.text)

    async def _on_no_database(self, request: Request, error: Exception) -> Response:
        return await self._error(request, 503, say(request.state.language, "no_database"))

    async def _on_crash(self, request: Request, error: Exception) -> Response:
        """A page that names a number, which the hub's log has beside the error."""
        number = token_hex(4)
        log.error("request %s failed: %s %s", number, request.method, request.scope["path"])
        return await self._error(request, 500, say(request.state.language, "crashed", number=number))

    async def _error(self, request: Request, status: int, text: str) -> Response:
        if wants_json(request.headers):
            return JSONResponse({"error": text}, status)
        return await self.page(request, "error.html", status, status_code=status, text=text)


def _no_job(request: Request) -> RefusedRequest:
    return RefusedRequest(404, say(request.state.language, "no_job", id=request.path_params["pk"]))
