"""Log-in, log-out, and the pages of the own account."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from zoneinfo import ZoneInfo, available_timezones

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from connecthub.config import Settings
from connecthub.storage import sessions, users
from connecthub.storage.database import Database
from connecthub.web.auth import (
    LOGIN,
    actor,
    address,
    give_session,
    inside,
    session_token,
    take_session,
)
from connecthub.web.fields import id_of, read_form
from connecthub.web.frame import Page
from connecthub.web.roles import PASSWORD_PAGE
from connecthub.words import LANGUAGES, say

_AT_ONCE = 2  # each check of a password takes 64 MiB
_ACCOUNT = "/admin/account"
THEMES = ("auto", "light", "dark")


class People:
    """The routes of whoever wants in, is in, or leaves."""

    def __init__(self, settings: Settings, database: Database, page: Page) -> None:
        self._settings, self._database, self._page = settings, database, page
        self._hashing = asyncio.Semaphore(_AT_ONCE)

    def routes(self) -> Sequence[Route]:
        """To be guarded by roles.NEEDED, by name."""
        both, post = ["GET", "POST"], ["POST"]
        return [
            Route("/login", self.login, name="login", methods=both),
            Route("/logout", self.logout, name="logout", methods=post),
            Route("/language", self.language, name="language", methods=post),
            Route("/account", self.account, name="account", methods=both),
            Route("/account/password", self.password, name="password", methods=both),
            Route("/account/sessions", self.end_sessions, name="account_sessions", methods=post),
        ]

    async def login(self, request: Request) -> Response:
        """The form, or a session for who knows the password; 429 where too many wrong ones were tried."""
        if request.method != "POST":
            next_page = request.query_params.get("next", "")
            return await self._page(request, "login.html", next_page=next_page, username="")
        form = await read_form(request)
        username, next_page = form.get("username", "").strip(), form.get("next", "")
        again = {"next_page": next_page, "username": username}
        zone = form.get("timezone", "")
        try:
            async with self._hashing:
                token = await sessions.log_in(
                    self._database,
                    username,
                    form.get("password", ""),
                    address(request),
                    request.headers.get("user-agent", ""),
                    zone if _is_zone(zone) else None,
                )
        except sessions.ThrottledError as error:
            return await self._throttled(request, "login.html", error, **again)
        if token is None:
            return await self._page(
                request, "login.html", 400, error=say(request.state.language, "login_wrong"), **again
            )
        return await self._enter(request, username, token, next_page)

    async def _enter(self, request: Request, username: str, token: str, next_page: str) -> Response:
        """The answer that carries the session, in place of the one that this browser had."""
        if old := session_token(request):
            await sessions.forget_session(self._database, old)
        if (language := request.query_params.get("lang")) in LANGUAGES:
            await users.set_language(self._database, username, language)
        user = await users.read_user(self._database, username)
        must_change = user is not None and user["must_change_password"]
        response = RedirectResponse(PASSWORD_PAGE if must_change else inside(next_page), 303)
        give_session(request, response, token)
        return response

    async def _throttled(
        self, request: Request, template: str, error: sessions.ThrottledError, **context: object
    ) -> Response:
        wait = f"{error.wait_s // 60}:{error.wait_s % 60:02}"
        text = say(request.state.language, "login_throttled", wait=wait)
        response = await self._page(request, template, 429, error=text, **context)
        response.headers["Retry-After"] = str(error.wait_s)
        return response

    async def logout(self, request: Request) -> Response:
        """End the session."""
        await sessions.log_out(self._database, session_token(request), actor(request))
        response = RedirectResponse(LOGIN, 303)
        take_session(request, response)
        return response

    async def language(self, request: Request) -> Response:
        """Switch the language of the admin for this user."""
        form = await read_form(request)
        if (language := form.get("language", "")) in LANGUAGES:
            await users.set_language(self._database, request.state.user, language)
        return RedirectResponse(inside(form.get("next", "")), 303)

    async def account(self, request: Request) -> Response:
        """Preferences and sessions."""
        if request.method != "POST":
            return await self._account_page(request)
        form = await read_form(request)
        zone, language, theme = (form.get(name, "") for name in ("timezone", "language", "theme"))
        if zone and not _is_zone(zone):
            return await self._account_page(
                request, 400, say(request.state.language, "zone_unknown", zone=zone)
            )
        await users.set_preferences(
            self._database,
            request.state.user,
            language=language if language in LANGUAGES else None,
            timezone=zone or None,
            theme=theme if theme in THEMES else THEMES[0],
        )
        return RedirectResponse(_ACCOUNT, 303)

    async def _account_page(self, request: Request, status: int = 200, zone_error: str = "") -> Response:
        user = request.state.user
        return await self._page(
            request,
            "account.html",
            status,
            account=await users.read_user(self._database, user),
            sessions=await sessions.user_sessions(self._database, user),
            zones=sorted(available_timezones()),
            themes=THEMES,
            zone_error=zone_error,
        )

    async def end_sessions(self, request: Request) -> Response:
        """End one of the own sessions, or all but this one."""
        form = await read_form(request)
        one = id_of(form, "session")
        if one is not None or form.get("session") == "others":
            keep = request.state.visit.session_id
            await sessions.end_sessions(
                self._database, request.state.user, actor(request), only=one, keep=keep
            )
        return RedirectResponse(_ACCOUNT, 303)

    async def password(self, request: Request) -> Response:
        """Change the own password; all sessions end, and this browser gets a new one."""
        if request.method != "POST":
            return await self._page(request, "password.html")
        form = await read_form(request)
        current, new = form.get("current", ""), form.get("new", "")
        language = request.state.language
        problem = say_password_problem(new, request.state.user, language)
        if problem is None and new != form.get("again", ""):
            problem = say(language, "password_differs")
        if problem is None and new == current:
            problem = say(language, "password_same")
        if problem is not None:
            return await self._page(request, "password.html", 400, new_error=problem)
        try:
            async with self._hashing:
                knows = await sessions.confirm_password(self._database, actor(request), current)
        except sessions.ThrottledError as error:
            return await self._throttled(request, "password.html", error)
        if not knows:
            return await self._page(request, "password.html", 400, error=say(language, "password_wrong"))
        return await self._changed(request, new)

    async def _changed(self, request: Request, new: str) -> Response:
        user, visit = request.state.user, request.state.visit
        await users.set_password(self._database, user, new, actor(request), must_change=False)
        if visit.must_change_password and user == users.ADMIN:
            with contextlib.suppress(OSError):  # gone already, or on another hub's machine
                users.password_file(self._settings.data_dir).unlink()
        token = await sessions.log_in(
            self._database,
            user,
            new,
            address(request),
            request.headers.get("user-agent", ""),
            visit.timezone,
        )
        response = RedirectResponse(_ACCOUNT if not visit.must_change_password else inside(""), 303)
        if token is not None:
            give_session(request, response, token)
        return response


def say_password_problem(password: str, username: str, language: str) -> str | None:
    """What is wrong with a new password, in words; None for nothing."""
    problem = users.password_problem(password, username)
    low, high = users.SHORTEST_PASSWORD, users.LONGEST_PASSWORD
    return None if problem is None else say(language, f"password_{problem}", low=low, high=high)


def _is_zone(name: str) -> bool:
    try:
        return bool(ZoneInfo(name))
    except (LookupError, ValueError, OSError):
        return False
