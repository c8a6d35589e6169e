"""Who asks, from where, and the cookie of a session."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from connecthub.storage.audit import Actor
from connecthub.storage.sessions import LIFE_HOURS

_COOKIE = "connecthub_session"
LOGIN = "/admin/login"
HOME = "/admin/"


def address(request: Request) -> str | None:
    """Where the request came from; behind a trusted proxy what that says."""
    return request.client.host[:64] if request.client else None


def actor(request: Request) -> Actor:
    """Who asks, for the audit."""
    return Actor(request.state.user, address(request))


def session_token(request: Request) -> str:
    """What the session's cookie holds, "" for none."""
    return request.cookies.get(_cookie_name(request), "")


def give_session(request: Request, response: Response, token: str) -> None:
    """Hand the session to the browser."""
    response.set_cookie(
        _cookie_name(request),
        token,
        max_age=LIFE_HOURS * 3600,
        path="/",
        httponly=True,
        samesite="lax",
        secure=_is_encrypted(request),
    )


def take_session(request: Request, response: Response) -> None:
    """Let the browser forget the session."""
    response.delete_cookie(
        _cookie_name(request), path="/", httponly=True, samesite="lax", secure=_is_encrypted(request)
    )


def sent_path(request: Request) -> str:
    """The path as it was sent: decoded and quoted again, an id with a slash in it would be another."""
    sent: bytes | None = request.scope.get("raw_path")
    return sent.decode("latin-1") if sent else quote(request.scope["path"])


def came_from(request: Request) -> str:
    """This page, to come back to it; of an answer to a form the page that the form was on."""
    if request.method == "GET":
        return sent_path(request) + (f"?{request.url.query}" if request.url.query else "")
    try:
        _, _, path, query, _ = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return HOME
    return inside(path + (f"?{query}" if query else ""))


def inside(page: str, otherwise: str = HOME) -> str:
    """`page` if it is one of the admin's, so that a link cannot lead elsewhere."""
    plain = page.isascii() and page.isprintable() and "\\" not in page
    return page if plain and page.startswith("/admin/") and not page.startswith(LOGIN) else otherwise


def _cookie_name(request: Request) -> str:
    # Browsers take a __Host- cookie only over TLS, and then from this very host only.
    return f"__Host-{_COOKIE}" if _is_encrypted(request) else _COOKIE


def _is_encrypted(request: Request) -> bool:
    return request.url.scheme == "https"
