"""Log-in and log-out."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from connecthub.storage import audit
from connecthub.storage.database import Database
from connecthub.storage.users import SESSION_HOURS, check_password, close_session, open_session
from connecthub.web.guard import COOKIE, LOGIN

_AT_ONCE = 2  # each check of a password takes 64 MiB
_HOME = "/admin/jobs/list"


class Gate:
    """Opens sessions for those who know a password, and closes them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hashing = asyncio.Semaphore(_AT_ONCE)

    async def enter(self, request: Request, username: str, password: str, next_page: str) -> Response | None:
        """The answer that carries the new session, None where name or password is wrong. Both are audited."""
        async with self._hashing:
            known = await check_password(self._database, username, password)
        async with self._database.transaction() as connection:
            if not known:
                # What was typed as the name may be a password typed into the wrong field: not kept.
                await audit.record(connection, "", "login.failed", "session", address(request))
                return None
            await close_session(connection, request.cookies.get(COOKIE, ""))
            token = await open_session(connection, username)
            await audit.record(connection, username, "login", "session", address(request))
        response = RedirectResponse(_inside(next_page), 303)
        response.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_HOURS * 3600,
            path="/",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    async def leave(self, request: Request) -> Response:
        """End the session of this request."""
        async with self._database.transaction() as connection:
            await close_session(connection, request.cookies.get(COOKIE, ""))
            await audit.record(connection, request.state.user, "logout", "session", address(request))
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return response


def address(request: Request) -> str | None:
    """Where the request came from."""
    return request.client.host if request.client else None


def _inside(page: str) -> str:
    """`page` if it is one of the admin's, so that a link cannot lead elsewhere after the log-in."""
    plain = page.isascii() and page.isprintable() and "\\" not in page
    return page if plain and page.startswith("/admin/") and not page.startswith(LOGIN) else _HOME
