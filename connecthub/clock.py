"""The clocks of this machine. What decides ownership of a run uses the database's clock instead."""

from __future__ import annotations

import time

# Goes on while the machine sleeps. Linux has a clock of its own for that; macOS's CLOCK_MONOTONIC does so.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds since some fixed point, never stepped, sleep of the machine included."""
    return time.clock_gettime(_CLOCK)
