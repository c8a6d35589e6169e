"""A run's log as its live stream: what is new since the line that the page had last."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict

from connecthub.run_log import TRUNCATED, parse
from connecthub.storage.database import Database
from connecthub.storage.run_page import read_growth

_POLL_S = 1.0
# A stream asks for its session anew at least this often: who is signed out sees no more than this.
_LONGEST_S = 60.0


async def stream(db: Database, log_id: int, last_line: int) -> AsyncIterator[str]:
    """Server-sent events of a run from the line after `last_line` on, by reading its row.

    `lines` (JSON list of Line, its id the number of the last one), `replace` (the lines behind the cut, which
    moved), `state` (something else changed: the page asks for its fragments), `end`.
    """
    until = time.monotonic() + _LONGEST_S
    sent, seen, before = last_line, "", None
    tail = ""
    yield "retry: 2000\n\n"
    while time.monotonic() < until:
        row = await read_growth(db, log_id, seen)
        if row is None:
            yield _event("end", "")
            return
        state = (row["status"], row["cancel_requested_at"], row["progress"], row["started_at"], row["leased"])
        seen = row["version"]
        if row["run_log"] is not None:
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
        is_over = row["ended"] and not row["leased"]
        if state != before and not (is_over and before is None):  # or since it was drawn
            yield _event("state", "")
        before = state
        if is_over:
            yield _event("end", "")
            return
        await asyncio.sleep(_POLL_S)


def _event(name: str, data: str, id: int | None = None) -> str:
    """One event; JSON as json.dumps writes it has no line break."""
    number = f"id: {id}\n" if id is not None else ""
    return f"{number}event: {name}\ndata: {data}\n\n"
