"""The page of one run, and its log live and as a file."""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from connecthub.errors import SecretError
from connecthub.security.vault import Vault
from connecthub.storage import run_page
from connecthub.storage.database import Database
from connecthub.storage.jobs import Row
from connecthub.web.charts import progress
from connecthub.web.job_diff import Change, differences
from connecthub.web.live import Page, live_page
from connecthub.web.run_log import LEVELS, parse, stream
from connecthub.web.run_words import next_attempt, result_of, tell
from connecthub.web.views import run_number

_TABS = ("log", "result", "traceback", "configuration")
_CONFIRM = ("cancel", "retry")


class RunPages:
    """One run: its page, and its log as a stream and as a file."""

    def __init__(self, database: Database, vault: Vault, page: Page) -> None:
        self._database, self._vault, self._page = database, vault, page

    def routes(self) -> list[BaseRoute]:
        """To be guarded by roles.NEEDED, by name; in front of the routes of all models."""
        return [
            Route("/joblogs/details/{log_id}", self.details, name="run_details"),
            Route("/joblogs/{log_id}/log", self.download, name="run_log"),
            Route("/joblogs/{log_id}/log/stream", self.stream, name="run_stream"),
        ]

    async def details(self, request: Request) -> Response:
        """Everything about one run."""
        log_id, db = run_number(request.path_params["log_id"]), self._database
        run = await run_page.read_whole_run(db, log_id)
        if run is None:
            raise HTTPException(404, "not_found")
        chain = await run_page.read_chain(db, run["idempotency_key"])
        before, after = await run_page.neighbours(db, run["job_id"], log_id)
        blocker = (
            await run_page.blocking_run(db, run["job_id"], log_id) if run["reason"] == "overlap" else None
        )
        tab, confirm = request.query_params.get("tab", ""), request.query_params.get("confirm", "")
        changes, today, secret_keys = await self._changes(log_id)
        return await live_page(
            self._page,
            request,
            "run.html",
            run=run,
            told=tell(run, request.state.language, request.state.zone),
            bar=_bar(run),
            chain=chain,
            next=next_attempt(chain, run),
            neighbours=(before, after),
            blocker=blocker,
            lines=parse(run["run_log"], run["started_at"]),
            levels=LEVELS,
            result=result_of(run["result"]),
            tab=tab if tab in _TABS else "log",
            confirm=confirm if confirm in _CONFIRM else "",
            changes=changes,
            today=today,
            secret_keys=secret_keys,
        )

    async def _changes(self, log_id: int) -> tuple[list[Change], Row | None, list[str] | None]:
        """What differs today from what the run ran with, today's Job, and which secrets the run had."""
        found = await run_page.read_definitions(self._database, log_id)
        if found is None:
            return [], None, []
        then, today = found
        keys = self._secret_keys(then["secret_cfg"])
        if today is None:
            return [], None, keys
        return differences(dict(then), dict(today), self._vault), today, keys

    def _secret_keys(self, token: str | None) -> list[str] | None:
        """The names of the secrets, None where they cannot be read any more."""
        try:
            return sorted(self._vault.decrypt(token)) if token else []
        except SecretError:
            return None

    async def stream(self, request: Request) -> Response:
        """The log from the line after Last-Event-ID on, as server-sent events."""
        log_id = run_number(request.path_params["log_id"])
        last = request.headers.get("last-event-id") or request.query_params.get("line", "0")
        if not (last.isascii() and last.isdigit() and len(last) < 10):
            raise HTTPException(400, "bad_request")
        if await run_page.read_growth(self._database, log_id, 0) is None:
            raise HTTPException(404, "not_found")
        events = stream(self._database, log_id, int(last))
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def download(self, request: Request) -> Response:
        """The log as a file of text."""
        log_id = run_number(request.path_params["log_id"])
        row = await run_page.read_growth(self._database, log_id, -1)
        if row is None:
            raise HTTPException(404, "not_found")
        name = f'attachment; filename="run-{log_id}.log"'
        return PlainTextResponse(row["run_log"] or "", headers={"Content-Disposition": name})


def _bar(run: Row) -> dict[str, Any] | None:
    """How far a running run is: by what it says itself, else by how long it usually takes."""
    if run["status"] != "RUNNING":
        return None
    told = json.loads(run["progress"]) if run["progress"] else {}
    done, total = (told.get("done"), told.get("total")) if isinstance(told, dict) else (None, None)
    share = done / total if done is not None and total else None
    return {"done": done, "total": total, "share": share, "svg": progress(share, None, "")}
