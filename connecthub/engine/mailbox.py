"""Hands things from one event loop or thread to another loop, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

_GATHER_S = 0.001
Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Hands items to a loop of another thread, and wakes it once for all that came meanwhile.

    Items that come one by one would let the two threads take turns at the interpreter, which costs more than
    most plugins: so those that `home`, a loop whose thread alone posts, has for it in one go are handed over
    together; without a home, those that come within a millisecond.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[Item], None],
        home: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = loop
        self._take = take
        self._home = home
        self._items: deque[Item] = deque()
        self._woken = False

    def post(self, item: Item) -> None:
        """May be called in any thread, or with a home in its thread."""
        self._items.append(item)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: the process is about to
                if self._home is None:
                    self._loop.call_soon_threadsafe(self._loop.call_later, _GATHER_S, self._drain)
                else:
                    # In no context of its own: who posts may do so in that of a plugin.
                    self._home.call_soon(
                        self._loop.call_soon_threadsafe, self._drain, context=contextvars.Context()
                    )

    def deliver(self) -> None:
        """On the loop that takes: hand over now what has come, whatever its home is at."""
        if self._items:
            self._drain()

    def _drain(self) -> None:
        self._woken = False  # before reading: an item that comes now wakes the loop again
        while self._items:
            try:
                self._take(self._items.popleft())
            except Exception as error:  # a fault with one must not lose the others
                log.error("what came from another thread could not be taken: %s", type(error).__name__)
