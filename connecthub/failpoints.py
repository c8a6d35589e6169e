"""Named points of the code at which the fault suite may make the process fail.

Off unless the environment says `CONNECTHUB_FAILPOINT=<point>[:<action>[:<n>]]` at start. The action is taken
at the n-th time (1 by default, 0: each time) that the point is passed: `kill` (SIGKILL to the own process,
the default), `stop` (SIGSTOP), `raise` (ConnectionResetError, as if the connection had been cut).
"""

from __future__ import annotations

import os
import signal
from typing import Final

POINTS: Final = frozenset(
    {
        "tick.before_commit",
        "tick.after_commit",
        "claim.after_answer",
        "run.before_start",
        "run.after_return",
        "end.before_store",
        "end.after_store",
        "spool.before_sync",
        "spool.after_write",
        "beat.before",
        "shutdown.before_release",
        "keys.after_file",
        "keys.after_batch",
        "keys.before_canary",
        "restore.before_commit",
    }
)
VARIABLE: Final = "CONNECTHUB_FAILPOINT"

_armed, _action, _nth = "", "kill", 1
_passed = 0


def arm(text: str) -> None:
    """Take what the variable says; "" disarms. Raises ValueError for what is no point or action."""
    global _armed, _action, _nth, _passed
    point, _, rest = text.partition(":")
    action, _, number = rest.partition(":")
    if point and (point not in POINTS or (action or "kill") not in ("kill", "stop", "raise")):
        raise ValueError(f"{VARIABLE}: {text!r} names no point and action of connecthub/failpoints.py")
    _armed, _action, _nth, _passed = point, action or "kill", int(number or 1), 0


def passing(point: str) -> None:
    """The code passes `point` now."""
    global _passed
    if point != _armed:
        return
    _passed += 1
    if _nth and _passed != _nth:
        return
    if _action == "raise":
        raise ConnectionResetError(f"failpoint {point}")
    os.kill(os.getpid(), signal.SIGKILL if _action == "kill" else signal.SIGSTOP)
