"""The model view of runs: the list by key, and the page of one run."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from starlette.requests import Request

from connecthub.definitions.differences import Change, differences
from connecthub.errors import SecretError
from connecthub.run_log import LEVELS, parse
from connecthub.security.vault import Vault
from connecthub.storage import run_page
from connecthub.storage.jobs import Row
from connecthub.storage.models import JobLog
from connecthub.web.charts import progress
from connecthub.web.run_list import RunFigures, list_context
from connecthub.web.run_words import has_failed_parts, next_attempt, result_of, tell
from connecthub.web.views import HubView, run_number

_TABS = ("log", "result", "traceback", "configuration")
_CONFIRM = ("cancel", "retry")


class JobLogAdmin(HubView, model=JobLog):
    """Runs: read-only, newest first."""

    column_list: ClassVar[list[Any]] = [JobLog.id, JobLog.job_id, JobLog.status, JobLog.queued_at]
    column_details_list = column_list
    form_columns: ClassVar[list[Any]] = [JobLog.id]
    can_create = can_edit = can_delete = False
    list_template = "runs.html"
    details_template = "run.html"
    vault: ClassVar[Vault]
    figures: ClassVar[RunFigures]

    async def list_context(self, request: Request) -> dict[str, Any]:
        """The runs that the URL asks for; SQLAdmin would count them all."""
        return await list_context(self.database, self.figures, request)

    async def get_object_for_details(self, request: Request) -> Any:
        """Everything about one run but its chain, or None."""
        return await run_page.read_whole_run(self.database, run_number(request.path_params["pk"]))

    async def details_context(self, request: Request) -> dict[str, Any]:
        """What stands beside the run: its chain, its neighbours, and what has changed since."""
        db, run = self.database, await self.get_object_for_details(request)
        if run is None:  # deleted a moment ago
            return {}
        chain = await run_page.read_chain(db, run["idempotency_key"])
        blocker = (
            await run_page.blocking_run(db, run["job_id"], run["id"]) if run["reason"] == "overlap" else None
        )
        tab, confirm = request.query_params.get("tab", ""), request.query_params.get("confirm", "")
        changes, today, secret_keys = await self._changes(run["id"])
        return {
            "run": run,
            "told": tell(run, request.state.language, request.state.zone),
            "has_failed_parts": has_failed_parts(run),
            "bar": _bar(run),
            "chain": chain,
            "next": next_attempt(chain, run),
            "neighbours": await run_page.neighbours(db, run["job_id"], run["id"]),
            "blocker": blocker,
            "lines": parse(run["run_log"], run["started_at"]),
            "levels": LEVELS,
            "result": result_of(run["result"]),
            "tab": tab if tab in _TABS else "log",
            "confirm": confirm if confirm in _CONFIRM else "",
            "changes": changes,
            "today": today,
            "secret_keys": secret_keys,
        }

    async def _changes(self, log_id: int) -> tuple[list[Change], Row | None, list[str] | None]:
        """What differs today from what the run ran with, today's Job, and which secrets the run had."""
        found = await run_page.read_definitions(self.database, log_id)
        if found is None:
            return [], None, []
        then, today = found
        keys = self._secret_keys(then["secret_cfg"])
        if today is None:
            return [], None, keys
        return differences(dict(then), dict(today), self.vault), today, keys

    def _secret_keys(self, token: str | None) -> list[str] | None:
        """The names of the secrets, None where they cannot be read any more."""
        try:
            return sorted(self.vault.decrypt(token)) if token else []
        except SecretError:
            return None


# SQLAdmin makes its own identity while it makes the class.
JobLogAdmin.identity = "joblogs"


def _bar(run: Row) -> dict[str, Any] | None:
    """How far a running run is: by what it says itself, else by how long it usually takes."""
    if run["status"] != "RUNNING":
        return None
    told = json.loads(run["progress"]) if run["progress"] else {}
    done, total = (told.get("done"), told.get("total")) if isinstance(told, dict) else (None, None)
    share = done / total if done is not None and total else None
    return {"done": done, "total": total, "share": share, "svg": progress(share, None, f"{share or 0:.0%}")}
