"""What every request passes before any page sees it: headers, language, forgery check, session.

One place for all doors, so that no route, of ours or of SQLAdmin, can forget one of them.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connecthub.config import Settings
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.sessions import Visit, read_visit
from connecthub.web.auth import LOGIN, came_from, session_token
from connecthub.web.fields import is_storable
from connecthub.words import LANGUAGES, choose, say

NO_DATABASE = (*UNAVAILABLE, InterfaceError, OperationalError)
# Everything that needs no session; whatever is added elsewhere is closed.
# /metrics asks for a token, or answers this machine only.
_OPEN = ("/", "/health", "/health/ready", "/metrics", LOGIN)
_OPEN_FILES = ("/admin/static/", "/admin/statics/")
# Probes name a machine by its address, whatever it is called.
_ANY_HOST = ("/health", "/health/ready", "/metrics")
# Before anybody has logged in, nothing large can be meant.
_LARGEST_LOGIN, _LARGEST_BODY = 64 * 1024, 16 * 1024 * 1024
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self'; "
    "script-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'; object-src 'none'",
}


def wants_json(headers: Headers) -> bool:
    """Whether a program asks, which gets JSON instead of pages and redirects."""
    accept = headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def is_own_page(request: Request) -> bool | None:
    """Whether a page of the hub itself sent this; None where the client says nothing about it.

    Sec-Fetch-Site where the browser sends it, else Origin, whose host must be the one that was asked. A page
    that came in clear is none of a hub that is asked over TLS.
    """
    headers = request.headers
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return None
    try:
        scheme, host, *_ = urlsplit(origin)
    except ValueError:
        return False
    if request.url.scheme == "https" and scheme != "https":
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
                if not scope["path"].startswith(_OPEN_FILES):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self.app(scope, receive, send_with_headers)


class GuardMiddleware:
    """Sets what pages know of their reader, and turns away what may not pass.

    `state`: `visit` (the session, or None), `user` (its name), `language`, `zone` (a ZoneInfo).
    """

    def __init__(self, app: ASGIApp, database: Database, settings: Settings) -> None:
        self.app = app
        self._database = database
        self._hosts = settings.server.allowed_hosts
        self._zone = ZoneInfo(settings.scheduler.timezone)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, or answer for the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        request.state.language = choose(request.headers.get("accept-language", ""))
        request.state.zone = self._zone
        request.state.visit = request.state.user = None
        try:
            refusal = await self._refusal(request)
        except NO_DATABASE:
            refusal = _answer(request, 503, "no_database")
        most = _LARGEST_BODY if request.state.visit is not None else _LARGEST_LOGIN
        await (refusal or self.app)(scope, _limited(receive, most), send)

    async def _refusal(self, request: Request) -> Response | None:
        path = request.scope["path"]
        if not is_storable(path) or "%00" in request.url.query:
            return _answer(request, 400, "bad_request")
        if self._hosts and path not in _ANY_HOST and _host_name(request) not in self._hosts:
            return _answer(request, 400, "wrong_host")
        own = is_own_page(request)
        changes = request.method not in ("GET", "HEAD")
        # A program may log in without saying where from: without a session there is nothing to abuse.
        if changes and not (own or (own is None and path == LOGIN)):
            return _answer(request, 403, "forged")
        if path.startswith(_OPEN_FILES) or (path in _OPEN and path != LOGIN):
            return None
        await self._recognise(request, path)
        if request.state.visit is not None or path == LOGIN:
            return None
        if wants_json(request.headers):
            return _answer(request, 401, "login_needed")
        back = f"?next={quote(came_from(request), safe='')}" if request.method == "GET" else ""
        return RedirectResponse(LOGIN + back, 303)

    async def _recognise(self, request: Request, path: str) -> None:
        """Whose session this is, and how that person reads."""
        token = session_token(request)
        # What a page asks for by itself keeps no session alive.
        is_seen = request.method != "GET" or request.headers.get("sec-fetch-dest") != "empty"
        visit = await read_visit(self._database, token, is_seen=is_seen) if token else None
        asked = request.query_params.get("lang") if path == LOGIN else None
        if visit is not None:
            request.state.visit, request.state.user = visit, visit.username
            request.state.zone = _zone(visit, self._zone)
            asked = visit.language or asked
        if asked in LANGUAGES:
            request.state.language = asked


def _limited(receive: Receive, most: int) -> Receive:
    """`receive`, which raises HTTPException 413 for a body of more than `most` bytes, whatever it claims."""
    got = 0

    async def receive_limited() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > most:
            raise HTTPException(413, "too_large")
        return message

    return receive_limited


def _host_name(request: Request) -> str:
    """The name that the request calls this machine, without the port."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _zone(visit: Visit, otherwise: ZoneInfo) -> ZoneInfo:
    try:
        return ZoneInfo(visit.timezone) if visit.timezone else otherwise
    except (LookupError, ValueError, OSError):  # a zone that the next version of tzdata has dropped
        return otherwise


def _answer(request: Request, status: int, key: str) -> Response:
    """A refusal in one line: too early, or too doubtful, for a page of the admin."""
    text = say(request.state.language, key)
    if wants_json(request.headers):
        return JSONResponse({"error": text}, status)
    return PlainTextResponse(text, status)
