"""Routes for programs and buttons: run, retry, cancel, and whether the hub is well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from connecthub.errors import NotFoundError, RefusedError
from connecthub.storage.database import Database
from connecthub.storage.requests import cancel_run, retry_run
from connecthub.web.auth import actor
from connecthub.web.fields import id_of, read_form
from connecthub.web.guard import wants_json
from connecthub.web.views import run_number
from connecthub.words import say

Readiness = Callable[[], Awaitable[dict[str, str | None]]]


class RefusedRequest(Exception):
    """What was asked is not there or not possible; `text` says so in the reader's language."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class RunActions:
    """Retry and cancel runs: each writes a row, which the engine finds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def retry(self, request: Request) -> Response:
        """Queue the run again as it ran, or with `settings` = today; 409 while it is going.

        With `seen`, the newest run that the page knew of, a second click leads to what the first one made.
        """
        log_id = run_number(request.path_params["log_id"])
        try:
            form = await read_form(request)
            today = form.get("settings") == "today"
            seen = id_of(form, "seen")
            run_id = await retry_run(self._database, log_id, actor=actor(request), today=today, seen=seen)
        except NotFoundError:
            raise _refused(request, 404, "no_run", log_id) from None
        except RefusedError:
            raise _refused(request, 409, "still_running", log_id) from None
        return _done(request, run_id)

    async def cancel(self, request: Request) -> Response:
        """Cancel the run, or ask it to stop; 409 where it has ended."""
        log_id = run_number(request.path_params["log_id"])
        try:
            await cancel_run(self._database, log_id, actor=actor(request))
        except NotFoundError:
            raise _refused(request, 404, "no_run", log_id) from None
        except RefusedError:
            raise _refused(request, 409, "run_ended", log_id) from None
        return _done(request, log_id)


class Health:
    """Whether the process answers, and whether it does its work."""

    def __init__(self, name: str, readiness: Readiness) -> None:
        self._name = name
        self._readiness = readiness

    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"ok": True, "name": self._name})

    async def ready(self, request: Request) -> Response:
        """Each check by name: `ok`, or what is wrong with it."""
        problems = await self._readiness()
        ok = all(problem is None for problem in problems.values())
        checks = {name: problem or "ok" for name, problem in problems.items()}
        return JSONResponse({"ok": ok, "checks": checks}, 200 if ok else 503)


def _done(request: Request, run_id: int) -> Response:
    if wants_json(request.headers):
        return JSONResponse({"run_id": run_id})
    return RedirectResponse(f"/admin/joblogs/details/{run_id}", 303)


def _refused(request: Request, status: int, key: str, id: object) -> RefusedRequest:
    return RefusedRequest(status, say(request.state.language, key, id=id))
