"""What is asked so many times a second, whatever each took."""

from __future__ import annotations

import time
from collections.abc import Iterator


def paced(begun: float, a_second: int, count: int) -> Iterator[float]:
    """`count` moments from `begun` on, seconds since the epoch, each of them when it has come."""
    for number in range(count):
        at = begun + number / a_second
        time.sleep(max(0.0, at - time.time()))
        yield at
