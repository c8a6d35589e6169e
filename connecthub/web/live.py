"""Pages that stay true without reloading: they ask for themselves, and get 304 while nothing has changed."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Protocol

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

_HEADER = "hub-live"
# What a script counts on by itself is no change. All begin alike, so that a search runs past everything else.
_TICKING = re.compile(
    r'<t(?:ime data-tick="now"[^>]*>[^<]*|emplate [^>]*data-now=\S+|(ime [^>]*data-tick[^>]*>)[^<]*)'
)


class Page(Protocol):
    """Draws a template as an answer of `status`."""

    async def __call__(self, request: Request, name: str, status: int = 200, **context: Any) -> Response:
        """The answer."""


def is_fragment(request: Request) -> bool:
    """Whether the page itself asks, for what has changed in it."""
    return request.headers.get(_HEADER) == "1"


async def live_page(page: Page, request: Request, name: str, **context: Any) -> Response:
    """The template in the frame; asked by the page itself only its content, or 304."""
    if not is_fragment(request):
        return await page(request, name, layout="base.html", **context)
    response = await page(request, name, layout="fragment.html", **context)
    etag = f'"{version(bytes(response.body).decode())}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response


def version(html: str | Markup) -> str:
    """Tells whether two drawings of a block differ in more than what ticks."""
    return hashlib.sha256(_TICKING.sub(r"\1", str(html)).encode()).hexdigest()[:16]
