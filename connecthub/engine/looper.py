"""One small protocol for everything the hub does again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from connecthub.storage.database import UNAVAILABLE

log = logging.getLogger(__name__)

_AGAIN_S = 0.5
_DOUBLINGS = 20  # enough for any wait; after a night of failures the number itself would overflow


class Every:
    """Calls `once` every `seconds` until stopped; an error is logged with its cause, and it goes on.

    While the database is away the waits grow up to `slowest_s`, and only the first failure is logged.
    The first call comes after `seconds`, or `at_once`.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        once: Callable[[], Awaitable[None]],
        slowest_s: float,
        *,
        at_once: bool = False,
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._once = once
        self._slowest_s = slowest_s
        self._failures = 0
        self._first_s = 0.0 if at_once else seconds
        self._task = asyncio.create_task(self._run(), name=name)

    async def _run(self) -> None:
        await asyncio.sleep(self._first_s)
        while True:
            try:
                await self._once()
                if self._failures:
                    log.info("%s works again", self._name)
                self._failures = 0
            except UNAVAILABLE as error:
                self._failures += 1
                if self._failures == 1:
                    log.warning("%s waits for the database: %s", self._name, " ".join(str(error).split()))
            except Exception:
                self._failures += 1
                log.exception("%s failed and will be tried again", self._name)
            await asyncio.sleep(self._wait_s())

    def _wait_s(self) -> float:
        if not self._failures:
            return self._seconds
        return backoff(self._seconds, self._failures, max(self._seconds, self._slowest_s))

    async def stop(self) -> None:
        """End after what it does now was cancelled."""
        await cancel(self._task)


def backoff(first_s: float, failures: int, slowest_s: float) -> float:
    """How long to wait after so many failures in a row: twice as long each time, up to `slowest_s`."""
    return min(first_s * (1 << min(failures, _DOUBLINGS)), slowest_s)


async def cancel(task: asyncio.Task[None]) -> None:
    """Return when `task` has ended.

    It is cancelled again and again: a rollback that gets no answer raises an error of its own instead.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_S)
