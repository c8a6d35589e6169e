"""The audit page: who did what to what, when, from where."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connecthub.storage.audit import AuditFilter, read_audit
from connecthub.storage.database import Database
from connecthub.web.csv_file import csv_response
from connecthub.web.frame import Page
from connecthub.web.paths import segment
from connecthub.web.views import edge
from connecthub.words import LANGUAGES, say

_PAGE = 50
_MOST_IN_CSV = 100_000
ACTIONS = (
    "job.", "job.create", "job.update", "job.delete", "job.run",
    "job.enable", "job.disable", "job.clear", "job.restore", "run.", "run.retry", "run.cancel", "user.",
    "user.create", "user.role", "user.disable", "user.enable", "user.password", "user.sessions", "hub.",
    "hub.pause", "hub.resume", "hub.restore", "key.", "key.rotate", "key.retire",
    "login", "login.failed", "logout", "password.failed",
)  # fmt: skip


class AuditRoutes:
    """The audit as a page and as CSV, by the same filters."""

    def __init__(self, database: Database, page: Page) -> None:
        self._database, self._page = database, page

    def routes(self) -> Sequence[Route]:
        """To be guarded by roles.NEEDED, by name."""
        return [
            Route("/audit", self.show, name="audit"),
            Route("/audit.csv", self.download, name="audit_csv"),
        ]

    async def show(self, request: Request) -> Response:
        """One page, newest first."""
        before = edge(request.query_params.get("before", ""))
        chosen, errors = _filter(request)
        rows = await read_audit(self._database, chosen, before=before, limit=_PAGE + 1)
        return await self._page(
            request,
            "audit.html",
            400 if errors else 200,
            rows=rows[:_PAGE],
            older=rows[_PAGE - 1]["id"] if len(rows) > _PAGE else None,
            actions=ACTIONS,
            errors=errors,
            object_link=object_link,
            facts=lambda row: facts(row, request.state.language),
        )

    async def download(self, request: Request) -> Response:
        """All rows that match, newest first, at most 100,000."""
        chosen, _ = _filter(request)
        header = ("id", "at", "username", "action", "object", "address", "detail")
        return csv_response("audit.csv", header, self._csv_rows(chosen, request.state.zone))

    async def _csv_rows(self, chosen: AuditFilter, zone: ZoneInfo) -> AsyncIterator[list[list[Any]]]:
        rows = await read_audit(self._database, chosen, before=None, limit=_MOST_IN_CSV)
        yield [[row["id"], row["at"].astimezone(zone).isoformat(), *list(row)[2:]] for row in rows]


def object_link(action: str, object: str) -> str:
    """The page of what was changed, "" where it has none. It may be gone: the page says so."""
    kind = action.partition(".")[0]
    if kind == "job":
        return f"/admin/jobs/details/{segment(object)}"
    return f"/admin/joblogs/details/{object}" if kind == "run" and object.isdigit() else ""


def facts(row: Any, language: str) -> list[tuple[str, str]]:
    """What the row tells beyond its columns: name and words, `before → after` where there are both."""
    detail = json.loads(row["detail"])
    if not isinstance(detail, dict):  # written by SQL, and here for ever
        detail = {"detail": detail}
    texts = LANGUAGES[language]
    told = detail.get("changes")
    changes = [change for change in told if isinstance(change, dict)] if isinstance(told, list) else []
    if changes:  # each field with its values says more than the bare names
        detail = {name: detail[name] for name in detail if name not in ("changes", "changed", "secret_keys")}
    found = [(texts.get(f"audit.{name}", name), _words(name, value, texts)) for name, value in detail.items()]
    found += [_change(change, texts) for change in changes]
    return [(label, words) for label, words in found if words]


def _change(change: dict[str, Any], texts: dict[str, str]) -> tuple[str, str]:
    """One changed field; of a secret there is only what was done to it, no value."""
    label = ".".join(str(change[part]) for part in ("field", "key") if change.get(part))
    before, after = change.get("before"), change.get("after")
    if before is None and after is None:
        kind = "replaced" if change.get("kind") == "changed" else str(change.get("kind", ""))
        return label, texts.get(f"audit.{kind}", kind)
    return label, " → ".join("—" if value is None else str(value) for value in (before, after))


def _words(name: str, value: object, texts: dict[str, str]) -> str:
    if name == "run_id" and isinstance(value, int):
        return Markup('<a href="/admin/joblogs/details/{0}">#{0}</a>').format(value)
    if isinstance(value, list):
        joint = " → " if name == "role" else ", "
        return joint.join(_words(name, item, texts) for item in value)
    if name == "role":
        return texts.get(f"role.{value}", str(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _filter(request: Request) -> tuple[AuditFilter, dict[str, str]]:
    """What was asked for, and what of it cannot be read, by field."""
    asked, zone = request.query_params, request.state.zone
    errors: dict[str, str] = {}
    days = {}
    for name in ("from", "to"):
        text = asked.get(name, "").strip()
        days[name] = _day(text, zone)
        if text and days[name] is None:
            errors[name] = say(request.state.language, "bad_day", got=text[:40])
    end = days["to"]
    return AuditFilter(
        username=asked.get("user", "").strip() or None,
        action=asked.get("action", "").strip() or None,
        object=asked.get("object", "").strip().removeprefix("#") or None,
        begin=days["from"],
        end=end + timedelta(days=1) if end else None,
    ), errors


def _day(text: str, zone: ZoneInfo) -> datetime | None:
    """The begin of a day such as 2026-11-24 in the reader's zone."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d")
        return day.replace(tzinfo=zone) if 1970 < day.year < 9000 else None
    except ValueError:
        return None
