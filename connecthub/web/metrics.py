"""/metrics: for Prometheus on this machine, or with the token of the setting."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from connecthub.metrics import CONTENT_TYPE

_REFUSED = "metrics are for this machine, or for who sends the token of [metrics] token as a bearer token\n"


class MetricsPage:
    """`text` gives the metrics; an empty `token` leaves the door to this machine alone."""

    def __init__(self, text: Callable[[], Awaitable[bytes]], token: str) -> None:
        self._text = text
        self._token = token

    async def show(self, request: Request) -> Response:
        """The metrics in Prometheus's text format."""
        if not (self._has_token(request) or _is_local(request)):
            return PlainTextResponse(_REFUSED, 401, {"WWW-Authenticate": "Bearer"})
        return Response(await self._text(), media_type=CONTENT_TYPE)

    def _has_token(self, request: Request) -> bool:
        kind, _, sent = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(sent.strip().encode(), self._token.encode())
        return bool(self._token) and kind.lower() == "bearer" and right


def _is_local(request: Request) -> bool:
    """Whether the request comes from this machine itself, and not through a proxy on it."""
    if request.client is None or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
