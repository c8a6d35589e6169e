"""The admin: SQLAdmin's lists and pages in our templates, and forms of our own for what changes something."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqladmin import Admin
from sqladmin.templating import Jinja2Templates
from sqlalchemy.ext.asyncio import async_sessionmaker
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from connecthub.config import Settings
from connecthub.errors import NotFoundError
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.storage.overview import count_failing
from connecthub.web import display, job_words
from connecthub.web.audit import AuditRoutes
from connecthub.web.frame import FrameRoutes
from connecthub.web.guard import NO_DATABASE, wants_json
from connecthub.web.job_pages import job_routes
from connecthub.web.job_views import JobAdmin
from connecthub.web.live import live_page
from connecthub.web.overview import OverviewPages
from connecthub.web.people import People
from connecthub.web.roles import guarded
from connecthub.web.routes import RefusedRequest, RunActions
from connecthub.web.run_list import RunFigures
from connecthub.web.run_pages import RunFiles
from connecthub.web.run_views import JobLogAdmin
from connecthub.web.shared import Shared
from connecthub.web.users import UserAdmin, UserRoutes
from connecthub.web.views import HubView
from connecthub.words import LANGUAGES, say

log = logging.getLogger(__name__)
_HERE = Path(__file__).parent


class HubAdmin(Admin):
    """SQLAdmin with our routes only: what we do not offer (export, import, files, look-ups) is not there."""

    def __init__(self, app: Starlette, settings: Settings, database: Database, vault: Vault) -> None:
        self._settings, self._database, self._vault = settings, database, vault
        self._failing = Shared(lambda: count_failing(database), good_s=2)
        super().__init__(
            app,
            session_maker=async_sessionmaker(database.engine, expire_on_commit=False),
            title=settings.app.name,
            templates_dir=str(_HERE / "templates"),
        )
        HubView.database, JobLogAdmin.vault = database, vault
        JobLogAdmin.figures = RunFigures(database)
        self.add_view(JobAdmin)
        self.add_view(JobLogAdmin)
        self.add_view(UserAdmin)
        self.admin.router.routes = guarded(self._routes())
        # A redirect to the same path with a slash would name the host that the request claims.
        self.admin.router.redirect_slashes = False
        self.admin.exception_handlers = {
            HTTPException: self._on_http_error,
            RefusedRequest: self._on_refused,
            NotFoundError: self._on_gone,
            **dict.fromkeys(NO_DATABASE, self._on_no_database),
            Exception: self._on_crash,
        }

    def init_templating_engine(self) -> Jinja2Templates:
        """SQLAdmin's templates behind ours, with what ours need.

        They wait for nothing: compiled to be awaited, as SQLAdmin has them, each macro and each filter would
        take longer.
        """
        templates = super().init_templating_engine()
        templates.env.is_async = False
        templates.env.auto_reload = False
        display.install(templates.env)
        job_words.install(templates.env)
        return templates

    def _routes(self) -> Sequence[BaseRoute]:
        runs = RunActions(self._database)
        post = ["POST"]
        return [
            Mount("/statics", StaticFiles(packages=["sqladmin"]), name="statics"),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
            *OverviewPages(self._database, self._settings.retention, self.page).routes(),
            *RunFiles(self._database).routes(),
            *FrameRoutes(self._database, self.page).routes(),
            *AuditRoutes(self._database, self.page).routes(),
            *UserRoutes(self._database, self.page, self._user_view()).routes(),
            *People(self._settings, self._database, self.page).routes(),
            *job_routes(self._settings, self._database, self._vault, self.page, self._part),
            Route("/joblogs/{log_id}/retry", runs.retry, name="retry", methods=post),
            Route("/joblogs/{log_id}/cancel", runs.cancel, name="cancel", methods=post),
            Route("/{identity}/list", self.list, name="list"),
            Route("/{identity}/details/{pk:job}", self.details, name="details"),
        ]

    def _user_view(self) -> UserAdmin:
        return next(view for view in self.views if isinstance(view, UserAdmin))

    async def page(self, request: Request, name: str, status: int = 200, **context: Any) -> Response:
        """The template `name` in the frame, whose title says how many Jobs are failing."""
        if request.state.visit is not None and status < 500 and "failing_total" not in context:
            context["failing_total"] = await self._failing.get(fresh=False)
        return HTMLResponse(self._part(request, name, **context), status)

    def _part(self, request: Request, name: str, **context: Any) -> str:
        """The template `name` by itself."""
        return self.templates.env.get_template(name).render(request=request, **context)

    async def list(self, request: Request) -> Response:
        """One page of a list."""
        view = self._find_model_view(request.path_params["identity"])
        if not view.is_accessible(request):
            raise HTTPException(403)
        context = await view.list_context(request)
        return await live_page(self.page, request, view.list_template, model_view=view, **context)

    async def details(self, request: Request) -> Response:
        """The page of one row."""
        view = self._find_model_view(request.path_params["identity"])
        if not (view.can_view_details and view.is_accessible(request)):
            raise HTTPException(403)
        model = await view.get_object_for_details(request)
        if model is None:
            raise HTTPException(404, "not_found")
        context = await view.details_context(request)
        return await live_page(
            self.page, request, view.details_template, model_view=view, model=model, **context
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

    async def _on_gone(self, request: Request, error: Exception) -> Response:
        """Somebody has deleted it between two looks at it."""
        return await self._error(request, 404, say(request.state.language, "not_found"))

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
