"""What every request passes before any page sees it: headers, language, forgery check, session.

One place for all doors, so that no route, of ours or of SQLAdmin, can forget one of them.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.users import session_user
from connecthub.web.words import choose, say

COOKIE = "connecthub_session"
LOGIN = "/admin/login"
NO_DATABASE = (*UNAVAILABLE, InterfaceError, OperationalError)
_PUBLIC = ("/admin/static/", "/admin/statics/")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self'; "
    "script-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'; object-src 'none'",
}


def wants_json(headers: Headers) -> bool:
    """Whether a program asks, which gets JSON instead of pages and redirects."""
    accept = headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def is_own_page(headers: Headers) -> bool | None:
    """Whether a page of the hub itself sent this; None where the client says nothing about it.

    Sec-Fetch-Site where the browser sends it, else Origin, whose host must be the one that was asked.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return None
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(host) and host.lower() == headers.get("host", "").lower()


class HeadersMiddleware:
    """Adds the headers that keep browsers from guessing, framing and storing pages."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, with the headers added to the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if not scope["path"].startswith(_PUBLIC):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self.app(scope, receive, send_with_headers)


class GuardMiddleware:
    """Sets `state.language` and `state.user`, and turns away what may not pass."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self.app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, or answer for the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        request.state.language = choose(request.headers.get("accept-language", ""))
        request.state.user = None
        try:
            refusal = await self._refusal(request)
        except NO_DATABASE:
            refusal = _answer(request, 503, "no_database")
        await (refusal or self.app)(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        path = request.scope["path"]
        # PostgreSQL cannot store U+0000, so nothing that is asked for can hold it.
        if "\0" in path or "%00" in request.url.query:
            return _answer(request, 400, "bad_request")
        own = is_own_page(request.headers)
        changes = request.method not in ("GET", "HEAD")
        # A program may log in without saying where from: without a session there is nothing to abuse.
        if changes and not (own or (own is None and path == LOGIN)):
            return _answer(request, 403, "forged")
        if not (path == "/admin" or path.startswith("/admin/")) or path.startswith(_PUBLIC):
            return None
        token = request.cookies.get(COOKIE)
        request.state.user = await session_user(self._database, token) if token else None
        if request.state.user is not None or path == LOGIN:
            return None
        if wants_json(request.headers):
            return _answer(request, 401, "login_needed")
        query = f"?{request.url.query}" if request.url.query else ""
        back = f"?next={quote(quote(path) + query, safe='')}" if request.method == "GET" else ""
        return RedirectResponse(LOGIN + back, 303)


def _answer(request: Request, status: int, key: str) -> Response:
    """A refusal in one line: too early, or too doubtful, for a page of the admin."""
    text = say(request.state.language, key)
    if wants_json(request.headers):
        return JSONResponse({"error": text}, status)
    return PlainTextResponse(text, status)
