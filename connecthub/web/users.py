"""The pages that manage accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from sqlalchemy import Select, select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from connecthub.errors import NotFoundError
from connecthub.security.passwords import make_password
from connecthub.storage import sessions, users
from connecthub.storage.database import Database
from connecthub.storage.models import User
from connecthub.web.auth import actor
from connecthub.web.fields import read_form
from connecthub.web.frame import Page
from connecthub.web.roles import ADMIN, may
from connecthub.web.routes import RefusedRequest
from connecthub.web.views import HubView
from connecthub.words import say

USERS = "/admin/users/list"


class UserAdmin(HubView, model=User):
    """Accounts: the list. Never the hash of a password, which the model does not map."""

    column_list: ClassVar[list[Any]] = [User.username, User.role, User.disabled, User.last_login_at]
    column_details_list = column_list
    form_columns: ClassVar[list[Any]] = [User.username]
    can_create = can_edit = can_delete = can_view_details = False
    list_template = "users.html"

    def is_accessible(self, request: Request) -> bool:
        """For admins: the list is also behind a door of its own."""
        return may(request.state.visit, ADMIN)

    def rows_query(self, request: Request) -> Select[Any]:
        """By name; `q` in the name."""
        query = select(User).order_by(User.username)
        search = request.query_params.get("q", "").strip()
        return query.where(User.username.icontains(search, autoescape=True)) if search else query


UserAdmin.identity = "users"


class UserRoutes:
    """Create accounts, give roles and passwords, disable, end sessions."""

    def __init__(self, database: Database, page: Page, view: UserAdmin) -> None:
        self._database, self._page, self._view = database, page, view
        self._hashing = asyncio.Semaphore(1)

    def routes(self) -> Sequence[Route]:
        """To be guarded by roles.NEEDED, by name. The name of an account is a field of the form."""
        post = ["POST"]
        return [
            Route("/users/list", self.show, name="users"),
            Route("/users/create", self.create, name="user_create", methods=["GET", "POST"]),
            Route("/users/role", self.role, name="user_role", methods=post),
            Route("/users/disable", self.disable, name="user_disable", methods=post),
            Route("/users/enable", self.enable, name="user_enable", methods=post),
            Route("/users/password", self.password, name="user_password", methods=post),
            Route("/users/sessions", self.sessions, name="user_sessions", methods=post),
        ]

    async def show(self, request: Request) -> Response:
        """The list of accounts with what can be done to each."""
        return await self._list(request)

    async def _list(self, request: Request, **context: Any) -> Response:
        pagination = await self._view.list(request)
        return await self._page(
            request, "users.html", pagination=pagination, model_view=self._view, roles=users.ROLES, **context
        )

    async def create(self, request: Request) -> Response:
        """The form of a new account, or the account with a password that is shown once."""
        if request.method != "POST":
            return await self._create_page(request, "", users.ROLES[0], {})
        form = await read_form(request)
        name, role = form.get("username", "").strip(), form.get("role", "")
        errors: dict[str, str] = {}
        language = request.state.language
        if not users.is_username(name):
            errors["username"] = say(language, "user_name_wrong", longest=users.LONGEST_NAME)
        if role not in users.ROLES:
            errors["role"] = say(language, "error.choice", allowed=", ".join(users.ROLES))
        password = make_password()
        if not errors:
            try:
                async with self._hashing:
                    await users.add_user(
                        self._database, name, role, password, actor(request), must_change=True
                    )
            except users.NameTakenError:
                errors["username"] = say(language, "user_taken")
        if errors:
            return await self._create_page(request, name, role, errors)
        return await self._list(request, made=(name, password))

    async def _create_page(self, request: Request, name: str, role: str, errors: dict[str, str]) -> Response:
        status = 400 if errors else 200
        return await self._page(
            request, "user_form.html", status, username=name, role=role, roles=users.ROLES, errors=errors
        )

    async def role(self, request: Request) -> Response:
        """Give another role; never to the own account."""
        form = await read_form(request)
        role = form.get("role", "")
        if role not in users.ROLES:
            text = say(request.state.language, "error.choice", allowed=", ".join(users.ROLES))
            raise RefusedRequest(400, text)
        name = self._other(request, form, "user_own_role")
        return await self._do(request, form, users.set_role(self._database, name, role, actor(request)))

    async def disable(self, request: Request) -> Response:
        """No log-in any more, and all sessions end; never for the own account."""
        form = await read_form(request)
        name = self._other(request, form, "user_own_disable")
        return await self._do(request, form, users.set_disabled(self._database, name, True, actor(request)))

    async def enable(self, request: Request) -> Response:
        """Let the account log in again."""
        form = await read_form(request)
        name = form.get("username", "")
        return await self._do(request, form, users.set_disabled(self._database, name, False, actor(request)))

    async def password(self, request: Request) -> Response:
        """Make up a new password, shown once, to be changed; for the own account there is a page."""
        form = await read_form(request)
        name = self._other(request, form, "user_own_password")
        password = make_password()
        async with self._hashing:
            await self._do(
                request,
                form,
                users.set_password(self._database, name, password, actor(request), must_change=True),
            )
        return await self._list(request, made=(name, password))

    async def sessions(self, request: Request) -> Response:
        """End all sessions of an account; of the own one all but this."""
        form = await read_form(request)
        name = form.get("username", "")
        if await users.read_user(self._database, name) is None:
            raise RefusedRequest(404, say(request.state.language, "no_user", name=name))
        keep = request.state.visit.session_id
        await sessions.end_sessions(self._database, name, actor(request), keep=keep)
        return _back(form)

    def _other(self, request: Request, form: dict[str, str], own: str) -> str:
        """The account to act on. Raises RefusedRequest with the text `own` for the actor's own."""
        name = form.get("username", "")
        if name == request.state.user:
            raise RefusedRequest(409, say(request.state.language, own))
        return name

    async def _do(self, request: Request, form: dict[str, str], change: Awaitable[None]) -> Response:
        language, name = request.state.language, form.get("username", "")
        try:
            await change
        except NotFoundError:
            raise RefusedRequest(404, say(language, "no_user", name=name)) from None
        except users.LastAdminError:
            raise RefusedRequest(409, say(language, "user_last_admin")) from None
        return _back(form)


def _back(form: dict[str, str]) -> Response:
    """To the list as it stood: `back` is its query."""
    query = urlencode(parse_qsl(form.get("back", "")))
    return RedirectResponse(f"{USERS}?{query}" if query else USERS, 303)
