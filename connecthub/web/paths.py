"""Ids of Jobs in addresses and forms: a Job that came by SQL may be called anything."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match, Route
from starlette.types import Scope

from connecthub.web.fields import is_storable


def segment(job_id: str) -> str:
    """The id as one part of a path. The id `run` is written otherwise than the action, see RunRoute."""
    return "%72un" if job_id == "run" else quote(_spelt(job_id), safe=":")


def listed(job_ids: Iterable[str]) -> str:
    """Ids as one field of a form holds them: a line each, whatever is in them."""
    return "\n".join(quote(job_id, safe=":") for job_id in job_ids)


def ids_in(field: str) -> list[str]:
    """The ids that `listed` wrote, each once."""
    ids = (unquote(line) for line in field.split("\n") if line)
    return list(dict.fromkeys(filter(is_storable, ids)))


def _spelt(job_id: str) -> str:
    """The id, or its bytes behind `~`.

    Browsers and proxies take `.` and `..` for steps between folders however they are quoted, and no route
    matches a line break.
    """
    if job_id in (".", "..") or "\n" in job_id or _meant(job_id) != job_id:
        return "~" + job_id.encode().hex()
    return job_id


def _meant(text: str) -> str:
    """The id of such a spelling. What only looks like one, because no id is spelt so, is an id itself."""
    if not text.startswith("~"):
        return text
    try:
        job_id = bytes.fromhex(text[1:]).decode()
    except ValueError:
        return text
    return job_id if is_storable(job_id) and _spelt(job_id) == text else text


class _JobId(Convertor[str]):
    """`{pk:job}` in a route: the rest of the path as the id that it means."""

    regex = ".*"

    def convert(self, value: str) -> str:
        return _meant(value)

    def to_string(self, value: str) -> str:
        return _spelt(value)


register_url_convertor("job", _JobId())


class RunRoute(Route):
    """Matches where the path, as it was sent, ends in `/run`: a Job may be called `run`, or `a/run`.

    Links of the admin write such ids so that no part of them looks like it: see `segment`.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Route does, for what is not part of an id."""
        sent: bytes = scope.get("raw_path") or b"/run"
        return super().matches(scope) if sent.endswith(b"/run") else (Match.NONE, {})
