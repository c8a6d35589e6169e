"""What a run has to say for itself: the sentence on top, figures and tables of its result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connecthub.storage.jobs import Row
from connecthub.web.times import clock, length
from connecthub.words import say, say_reason

_FRAME = re.compile(r'^ *File "([^"\n]+)", line (\d+), in (\S+)', re.M)
_COLUMNS, _ROWS, _FIGURES = 8, 200, 4
_CELL = 300


@dataclass(frozen=True)
class Told:
    """The first sentence, and lines of detail below it."""

    first: str
    lines: list[str]


def tell(run: Row, language: str, zone: Any) -> Told:
    """What happened to an ended run; what still goes tells its template, since it ticks."""

    def text(key: str, **values: object) -> str:
        return say(language, key, **values)

    def at(moment: datetime) -> str:
        return clock(moment, run["now"], zone)

    return _TELLERS[run["status"]](run, language, text, at)


_Text = Callable[..., str]
_At = Callable[[datetime], str]


def _success(run: Row, language: str, text: _Text, at: _At) -> Told:
    took = length(_seconds(run), language)
    said = one_line(run["message"]) or figures_text(run["result"], language)
    return Told(text("told.success", took=took), [said] if said else [])


def _failure(run: Row, language: str, text: _Text, at: _At) -> Told:
    reason, message = run["reason"] or "", one_line(run["message"])
    first = (
        f"{say_reason(language, reason)}{text('colon')}{message}" if message else say_reason(language, reason)
    )
    lines = []
    if reason == "timeout" and run["started_at"] is not None:
        lines.append(text("told.timeout", took=length(_seconds(run), language)))
    if reason in ("bad_handler", "bad_secret", "bad_schedule"):
        lines.append(text(f"todo.{reason}"))
    frame = last_frame(run["traceback"])
    return Told(first or text("status.FAILURE"), [*lines, *([frame] if frame else [])])


def _lost(run: Row, language: str, text: _Text, at: _At) -> Told:
    expired = _meta(run).get("lease_expired_at")
    try:
        since = datetime.fromisoformat(expired) if isinstance(expired, str) else run["finished_at"]
    except ValueError:
        since = run["finished_at"]
    return Told(text("told.lost", at=at(since)), [one for one in [_detail(run)] if one])


def _cancelled(run: Row, language: str, text: _Text, at: _At) -> Told:
    by = _meta(run).get("cancelled_by")
    if run["reason"] == "cancelled" and by:
        return Told(text("told.cancelled_by", by=by), [])
    return Told(
        f"{text('status.CANCELLED')}{text('colon')}{say_reason(language, run['reason'] or 'cancelled')}", []
    )


def _skipped(run: Row, language: str, text: _Text, at: _At) -> Told:
    first = f"{text('status.SKIPPED')}{text('colon')}{say_reason(language, run['reason'] or '')}"
    missed, lines = _meta(run).get("missed"), [one for one in [_detail(run)] if one]
    if isinstance(missed, dict):
        try:
            span = (datetime.fromisoformat(str(missed[name])) for name in ("from", "to"))
            begin, end = (at(moment) for moment in span)
            lines.append(text("told.missed", n=int(missed["count"]), begin=begin, end=end))
        except (KeyError, ValueError, TypeError):
            pass
    if run["reason"] == "bad_schedule":
        lines.append(text("todo.bad_schedule"))
    return Told(first, lines)


def _going(run: Row, language: str, text: _Text, at: _At) -> Told:
    return Told(text(f"status.{run['status']}"), [])


_TELLERS: dict[str, Callable[[Row, str, _Text, _At], Told]] = {
    "SUCCESS": _success, "FAILURE": _failure, "LOST": _lost, "CANCELLED": _cancelled, "SKIPPED": _skipped,
    "QUEUED": _going, "RUNNING": _going,
}  # fmt: skip


def _seconds(run: Row) -> float:
    if run["started_at"] is None or run["finished_at"] is None:
        return 0.0
    return float((run["finished_at"] - run["started_at"]).total_seconds())


def _meta(run: Row) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(run["meta"])
    return meta


def _detail(run: Row) -> str:
    detail = _meta(run).get("detail")
    return detail if isinstance(detail, str) else ""


def one_line(text: str | None) -> str:
    """The first line of a message."""
    return _short((text or "").strip().split("\n", 1)[0])


def last_frame(traceback: str | None) -> str:
    """`path.py:88 in name`, where the innermost call of a traceback stands; "" without one."""
    frames = _FRAME.findall(traceback or "")
    return "{}:{} in {}".format(*frames[-1]) if frames else ""


@dataclass(frozen=True)
class Table:
    """A list of records: at most 8 columns and 200 rows of it, as texts."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    total: int


@dataclass(frozen=True)
class Result:
    """A result as figures and tables, and all of it as JSON."""

    figures: list[tuple[str, str]]
    tables: list[Table]
    text: str


def result_of(stored: str | None) -> Result | None:
    """The stored JSON of a result, sorted into what can be read at a glance; None for none."""
    if stored is None:
        return None
    value = json.loads(stored)
    text = json.dumps(value, ensure_ascii=False, indent=2)
    parts = value if isinstance(value, dict) else {"": value}
    figures = [(name, _cell(part)) for name, part in parts.items() if _is_plain(part) and name != "message"]
    tables = [_table(name, part) for name, part in parts.items() if _is_records(part)]
    return Result(figures, tables, text)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, int | float | str)


def _is_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _table(name: str, records: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for record in records[:_ROWS] for key in record))[:_COLUMNS]
    rows = [[_cell(record[key]) if key in record else "" for key in columns] for record in records[:_ROWS]]
    return Table(name, columns, rows, len(records))


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _short(text)


def _short(text: str) -> str:
    return text if len(text) <= _CELL else text[:_CELL] + "…"


def figures_of(stored: str | None) -> dict[str, int | float]:
    """The first four numbers of a result, which stand in for an empty message."""
    value = json.loads(stored) if stored else None
    if not isinstance(value, dict):
        return {}
    numbers = {
        name: part
        for name, part in value.items()
        if isinstance(part, int | float) and not isinstance(part, bool)
    }
    return dict(list(numbers.items())[:_FIGURES])


def figures_text(stored: str | None, language: str) -> str:
    """`total 1,250 · failed 2`."""
    return " · ".join(f"{name} {number:,}" for name, number in figures_of(stored).items())


def says(run: Row, language: str) -> str:
    """What a run says in one line of a list: its message, else the figures of its result."""
    return one_line(run["excerpt"]) or figures_text(run["result"], language)


def has_failed_parts(run: Row) -> bool:
    """Whether a run that succeeded counts failures in its result."""
    value = json.loads(run["result"]) if run["status"] == "SUCCESS" and run["result"] else None
    failed = value.get("failed") if isinstance(value, dict) else None
    return isinstance(failed, int | float) and not isinstance(failed, bool) and failed > 0


def next_attempt(chain: Sequence[Row], run: Row) -> Row | None:
    """The attempt that comes by itself after this run, while its time has not come."""
    for one in chain:
        if one["retry_of"] == run["id"] and one["status"] == "QUEUED" and one["not_before"]:
            return one if one["not_before"] > run["now"] else None
    return None
