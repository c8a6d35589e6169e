"""Which route needs which role, and the door that checks it: closed for whatever is not named here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from connecthub.storage.sessions import Visit
from connecthub.storage.users import ROLES
from connecthub.web.routes import RefusedRequest
from connecthub.words import say

VIEWER, OPERATOR, ADMIN = ROLES
OPEN: Final = ""  # for everybody, without a session

NEEDED: Final[dict[str, str]] = {
    # Doors and frame
    "login": OPEN,
    "logout": VIEWER,
    "index": VIEWER,
    "more": VIEWER,
    "keys": VIEWER,
    "search": VIEWER,
    "language": VIEWER,
    "account": VIEWER,
    "account_sessions": VIEWER,
    "password": VIEWER,
    "pause": ADMIN,
    "resume": ADMIN,
    "users": ADMIN,
    "user_create": ADMIN,
    "user_role": ADMIN,
    "user_disable": ADMIN,
    "user_enable": ADMIN,
    "user_password": ADMIN,
    "user_sessions": ADMIN,
    "audit": ADMIN,
    "audit_csv": ADMIN,
    # Jobs
    "list": VIEWER,
    "details": VIEWER,
    "create": ADMIN,
    "edit": ADMIN,
    "delete": ADMIN,
    "job_preview": ADMIN,
    "job_restore": ADMIN,
    "job_clear": ADMIN,
    "job_delete": ADMIN,
    "job_confirm": OPERATOR,
    "job_run_many": OPERATOR,
    "job_enable": OPERATOR,
    "job_disable": OPERATOR,
    # Runs
    "runs_csv": VIEWER,
    "run_log": VIEWER,
    "run_stream": VIEWER,
    "run": OPERATOR,
    "retry": OPERATOR,
    "cancel": OPERATOR,
}
# Files that ship with the hub: the only mounts, open because the log-in page needs them.
_FILES = ("static", "statics")
PASSWORD_PAGE = "/admin/account/password"  # noqa: S105
# What somebody who must change the password first can still reach.
_BEFORE_CHANGE = ("login", "logout", "language", "password")


def may(visit: Visit | None, role: str) -> bool:
    """Whether the visitor has `role` or one that includes it."""
    return visit is not None and ROLES.index(visit.role) >= ROLES.index(role)


def guarded(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """The routes, each behind its door. Raises LookupError for one that NEEDED does not name."""
    for route in routes:
        if isinstance(route, Mount) and route.name in _FILES:
            continue
        if not isinstance(route, Route) or route.name not in NEEDED:
            raise LookupError(f"roles.NEEDED does not say who may use {route!r}")
        route.app = Door(route.app, route.name)
    return list(routes)


class Door:
    """Lets through who has the role that the route needs."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on. Raises RefusedRequest, which names the role that is missing."""
        needed = NEEDED[self.name]
        request = Request(scope)
        visit: Visit | None = request.state.visit
        language = request.state.language
        if needed != OPEN:
            if visit is None:
                raise RefusedRequest(401, say(language, "login_needed"))
            if visit.must_change_password and self.name not in _BEFORE_CHANGE:
                if request.method not in ("GET", "HEAD"):
                    raise RefusedRequest(403, say(language, "password_first"))
                await RedirectResponse(PASSWORD_PAGE, 303)(scope, receive, send)
                return
            if not may(visit, needed):
                raise RefusedRequest(403, say(language, "role_needed", role=say(language, f"role.{needed}")))
        await self.app(scope, receive, send)
