"""A run's log, line by line: as the page shows it, and as the live stream sends what is new."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime

from connecthub.storage.database import Database
from connecthub.storage.run_page import read_growth

TRUNCATED = "[TRUNCATED]"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,12}Z) ([A-Z]{4,8}) ([^ :]+): ?(.*)", re.S)
_POLL_S = 1.0
# A stream asks for its session anew at least this often: who is signed out sees no more than this.
_LONGEST_S = 60.0


@dataclass(frozen=True)
class Line:
    """One line: `n` from 1, `offset` since the start, `at` an ISO time, `level` "" for none."""

    n: int
    level: str
    source: str
    text: str
    at: str = ""
    offset: str = ""
    is_cut: bool = False


def parse(log: str | None, started_at: datetime | None, first: int = 1) -> list[Line]:
    """The lines from number `first` on; what does not look like a line of a run's log is all text."""
    lines = (log or "").removesuffix("\n").split("\n") if log else []
    return [_line(n, text, started_at) for n, text in enumerate(lines[first - 1 :], first)]


def _line(n: int, text: str, started_at: datetime | None) -> Line:
    found = _LINE.fullmatch(text)
    if text == TRUNCATED:
        return Line(n, "", "", text, is_cut=True)
    if found is None or found[2] not in LEVELS:
        return Line(n, "", "", text)
    at, level, source, said = found.groups()
    return Line(n, level, source, said, at, _offset(at, started_at))


def _offset(at: str, started_at: datetime | None) -> str:
    if started_at is None:
        return ""
    try:
        seconds = (datetime.fromisoformat(at) - started_at).total_seconds()
    except ValueError:
        return ""
    return f"{seconds:+.1f}s"


async def stream(db: Database, log_id: int, last_line: int) -> AsyncIterator[str]:
    """Server-sent events of a run from the line after `last_line` on, by reading its row.

    `lines` (JSON list of Line, its id the number of the last one), `replace` (the lines behind the cut, which
    moved), `state` (something else changed: the page asks for its fragments), `end`.
    """
    until = time.monotonic() + _LONGEST_S
    sent, seen_bytes, before = last_line, -1, None
    tail = ""
    yield "retry: 2000\n\n"
    while time.monotonic() < until:
        row = await read_growth(db, log_id, seen_bytes)
        if row is None:
            yield _event("end", "")
            return
        state = (row["status"], row["cancel_requested_at"], row["progress"], row["started_at"], row["leased"])
        if row["run_log"] is not None:
            seen_bytes = row["bytes"]
            head, cut, behind = row["run_log"].partition(f"\n{TRUNCATED}\n")
            if cut:
                count = head.count("\n") + 2
                if behind != tail:
                    tail, sent = behind, count
                    lines = parse(row["run_log"], row["started_at"], count)
                    yield _event("replace", json.dumps([asdict(line) for line in lines]), count)
            else:
                lines = parse(row["run_log"], row["started_at"], sent + 1)
                if lines:
                    sent = lines[-1].n
                    yield _event("lines", json.dumps([asdict(line) for line in lines]), sent)
        if before is not None and state != before:
            yield _event("state", "")
        before = state
        if row["ended"] and not row["leased"]:
            yield _event("end", "")
            return
        await asyncio.sleep(_POLL_S)


def _event(name: str, data: str, id: int | None = None) -> str:
    """One event; JSON as json.dumps writes it has no line break."""
    number = f"id: {id}\n" if id is not None else ""
    return f"{number}event: {name}\ndata: {data}\n\n"
