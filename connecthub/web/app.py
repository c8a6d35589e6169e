"""The web application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from connecthub.config import Settings
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.web.auth import HOME
from connecthub.web.guard import GuardMiddleware, HeadersMiddleware
from connecthub.web.metrics import MetricsPage
from connecthub.web.pages import HubAdmin
from connecthub.web.routes import Health, Readiness


def create_app(
    settings: Settings,
    database: Database,
    vault: Vault,
    readiness: Readiness,
    metrics: Callable[[], Awaitable[bytes]],
) -> Starlette:
    """The application: /health, /health/ready, /metrics, and the admin below /admin.

    `readiness` tells each check by name: None where it is well, else what is wrong. `metrics` gives the text
    for Prometheus.
    """
    figures = MetricsPage(metrics, settings.metrics.token.get_secret_value())
    health = Health(settings.app.name, readiness)
    app = Starlette(
        routes=[
            Route("/", _to_admin),
            Route("/admin", _to_admin),
            Route("/health", health.alive),
            Route("/health/ready", health.ready),
            Route("/metrics", figures.show),
        ],
        middleware=[
            # First, so that all others see who really asks and whether that is encrypted.
            Middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.server.trusted_proxies)),
            Middleware(HeadersMiddleware),
            Middleware(GuardMiddleware, database=database, settings=settings),
        ],
    )
    app.router.redirect_slashes = False
    HubAdmin(app, settings, database, vault)
    return app


async def _to_admin(request: Request) -> Response:
    return RedirectResponse(HOME, 303)
