"""A reading that many pages ask for, where it is too long to be made for each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MANY_JOBS = 1000  # from so many on, what looks at every Job is shared
_REST, _MOST_S = 10, 10.0  # a reading is good for so many times of what it took, but no longer than that


class Shared(Generic[T]):
    """What `read` gave last. After `good_s` it is read behind an answer, after four times that before it."""

    def __init__(self, read: Callable[[], Awaitable[T]], good_s: float) -> None:
        self._read, self._good_s = read, good_s
        self._value: tuple[T] | None = None
        self._at = self._took_s = 0.0
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[T] | None = None

    async def get(self, *, fresh: bool) -> T:
        """The value, with `fresh` as it is now."""
        age = time.monotonic() - self._at
        good_s = max(self._good_s, min(_REST * self._took_s, _MOST_S))
        if fresh or self._value is None or age > 4 * good_s:
            return await self._again(time.monotonic())
        if age > good_s and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._again(time.monotonic()))
            # An error is told by the next who waits for the reading.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._value[0]

    async def _again(self, asked: float) -> T:
        async with self._reading:
            if self._value is None or self._at < asked:  # else somebody has read it while we waited
                begin = time.monotonic()
                self._value, self._at = (await self._read(),), begin
                self._took_s = time.monotonic() - begin
            return self._value[0]
