"""Threads for plain plugins: as many as there are calls at once, which the pool's places bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from connecthub.engine.mailbox import Mailbox
from connecthub.engine.outcome import Returned
from connecthub.engine.plugin_loop import Call

_IDLE_S = 10.0  # a thread that nothing comes for ends


class Threads:
    """Daemon threads that take calls from one queue. What they return goes back many at once.

    A library that wakes the loop for each call, and makes a task of it, costs more than most plugins do.
    """

    def __init__(self, done: Mailbox[tuple[Call, Returned]]) -> None:
        self._done = done
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0  # threads that wait, or are about to, and that no call in the queue is meant for

    def submit(self, call: Call) -> None:
        """Run `call` in a thread that is free, or in a new one; RuntimeError where none can be started."""
        with self._lock:
            is_free = self._free > 0
            self._free -= is_free
        if is_free:
            self._calls.put(call)
        else:
            threading.Thread(target=self._work, args=(call,), name="connecthub-thread", daemon=True).start()

    def close(self) -> None:
        """End the threads that are free; those that do not return are left behind."""
        with self._lock:
            free, self._free = self._free, 0
        for _ in range(free):
            self._calls.put(None)

    def _work(self, call: Call | None) -> None:
        while call is not None:
            ended = (call, call.context.run(_returned, call.function))
            with self._lock:
                self._free += 1
            self._done.post(ended)
            del ended, call  # nothing of a run is kept while the thread waits
            call = self._next()

    def _next(self) -> Call | None:
        try:
            return self._calls.get(timeout=_IDLE_S)
        except Empty:
            with self._lock:
                if self._free:
                    self._free -= 1
                    return None
            return self._calls.get()  # one is meant for this thread


def _returned(function: Callable[[], Any]) -> Returned:
    try:
        return Returned(function())
    except BaseException as error:  # SystemExit and StopIteration must not end the thread
        return Returned(error=error)
