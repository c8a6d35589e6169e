"""Where plugin code runs: async plugins on a loop in a thread of its own, sync ones in threads.

A run holds one of the pool's places until its code has really returned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from connecthub.engine.mailbox import Mailbox
from connecthub.engine.outcome import Returned
from connecthub.engine.plugin_loop import Call, PluginLoop, tell
from connecthub.engine.threads import Threads

log = logging.getLogger(__name__)

_WATCH_S = 0.25


class Pool:
    """N places. Belongs to the hub's loop; make it there."""

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self.size = size
        self.taken = 0
        self._on_free = on_free
        self._done: Mailbox[tuple[Call, Returned]] = Mailbox(asyncio.get_running_loop(), tell)
        self._loop = PluginLoop()
        self._old_loops: list[PluginLoop] = []
        self._threads = Threads(self._done)
        self._is_used = asyncio.Event()  # the plugin loop, since the last look at it that found nothing there
        self._watch = asyncio.create_task(self._watching())

    @property
    def free(self) -> int:
        """How many more runs may be claimed."""
        return self.size - self.taken

    def take(self) -> None:
        """A run takes a place."""
        self.taken += 1

    def leave(self) -> None:
        """The code of a run has returned."""
        self.taken -= 1
        self._on_free()

    def start_async(self, call: Call) -> None:
        """Run a coroutine function on the plugin loop."""
        self._loop.submit(call)
        self._is_used.set()

    def start_in_thread(self, call: Call) -> None:
        """Run a plain function in a thread."""
        try:
            self._threads.submit(call)
        except RuntimeError as error:  # no thread can be started
            self._done.post((call, Returned(error=error)))

    async def _watching(self) -> None:
        while True:
            await self._is_used.wait()
            if not (self._old_loops or self._loop.is_busy):
                self._is_used.clear()  # one look more: what has just returned may wait to be delivered
            await asyncio.sleep(_WATCH_S)
            for loop in [self._loop, *self._old_loops]:
                loop.deliver()
            if self._loop.is_blocked():
                self._replace_loop()
            for old in [old for old in self._old_loops if not old.running and not old.is_blocked()]:
                old.stop()
                self._old_loops.remove(old)

    def _replace_loop(self) -> None:
        """What a blocked loop has not begun moves to a fresh one, which also gets all new runs."""
        try:
            fresh = PluginLoop()
        except (
            RuntimeError,
            OSError,
        ) as error:  # no thread or no file handle is left: the next look tries again
            log.error("no fresh event loop for plugins can be made: %s", error)
            return
        old, self._loop = self._loop, fresh
        self._old_loops.append(old)
        names = ", ".join(call.name for call in list(old.running)) or "a plugin"
        log.warning("%s blocks its event loop at %s; other runs go on in a fresh one", names, old.where())
        for call in old.steal():
            self._loop.submit(call)
            if call.is_interrupted:
                call.interrupt()

    async def close(self) -> None:
        """End the plugin loops; threads that do not return are left behind."""
        self._watch.cancel()
        for loop in [self._loop, *self._old_loops]:
            loop.stop()
        self._threads.close()
