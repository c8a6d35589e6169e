"""A run's log, line by line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

TRUNCATED = "[TRUNCATED]"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,12}Z) ([A-Z]{4,8}) ([^ :]+): ?(.*)", re.S)


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
