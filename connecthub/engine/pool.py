"""Where plugin code runs: async plugins on a loop in a thread of its own, sync ones in threads.

A run holds one of the pool's places until its code has really returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

from connecthub.clock import boottime
from connecthub.engine.outcome import Returned

log = logging.getLogger(__name__)

BLOCKED_S = 1.0
_WATCH_S = 0.25
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
                    self._home.call_soon(self._loop.call_soon_threadsafe, self._drain)

    def _drain(self) -> None:
        self._woken = False  # before reading: an item that comes now wakes the loop again
        while self._items:
            self._take(self._items.popleft())


class Call:
    """Plugin code on its way: `future` is done, on the hub's loop, when the code has returned."""

    def __init__(self, name: str, function: Callable[[], Any], context: contextvars.Context) -> None:
        self.name = name
        self.function = function
        self.context = context
        self.future: asyncio.Future[Returned] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.home: PluginLoop | None = None

    def interrupt(self) -> None:
        """Cancel the code where that is possible; a thread has to look at `ctx.cancelled` itself."""
        if self.home is not None:
            self.home.interrupt(self)

    def kill(self) -> bool:
        """End the code by force, and tell whether that was possible: here it is not, in a child it is."""
        return False


class PluginLoop:
    """An event loop in a daemon thread, for async plugins."""

    def __init__(self, done: Mailbox[tuple[Call, Returned]]) -> None:
        self._done = done
        self.loop = asyncio.new_event_loop()
        self._inbox: Mailbox[Call] = Mailbox(self.loop, self._begin_soon, asyncio.get_running_loop())
        self._pending: dict[Call, None] = {}
        self.running: dict[Call, None] = {}
        self.pulse = boottime()
        self._asked = False
        self._stopped = False
        self.loop.set_exception_handler(_left_behind)
        self.thread = threading.Thread(target=self._run_forever, name="connecthub-plugins", daemon=True)
        self.thread.start()

    def submit(self, call: Call) -> None:
        """Begin `call` on this loop as soon as it is free."""
        call.home = self
        self._pending[call] = None
        self._inbox.post(call)

    def interrupt(self, call: Call) -> None:
        """Cancel the call's task, begun or not."""
        self.loop.call_soon_threadsafe(self._cancel, call)

    def is_blocked(self) -> bool:
        """Whether the loop has not come round for BLOCKED_S; asks it to tell, for the next look.

        One that nothing waits for is left asleep.
        """
        if not (self._asked or self._pending or self.running):
            return False
        now = boottime()
        if self._asked:
            return now - self.pulse > BLOCKED_S
        self._asked = True
        self.pulse = now
        self.loop.call_soon_threadsafe(self._answer)
        return False

    def steal(self) -> list[Call]:
        """The calls that have not begun here; they will not."""
        stolen = []
        for call in list(self._pending):
            # Whoever takes it out of the dict, here or in `_run`, has it: one dict operation is atomic.
            if self._pending.pop(call, self) is None:
                stolen.append(call)
        return stolen

    def stop(self) -> None:
        """End the loop after what it does now."""
        self._stopped = True
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _run_forever(self) -> None:
        while not self._stopped:
            try:
                self.loop.run_forever()
            except BaseException as error:  # SystemExit of a task or callback that a plugin left behind
                log.warning("a plugin tried to end its event loop: %s", type(error).__name__)

    def where(self) -> str:
        """The line at which the thread stands."""
        frame = sys._current_frames().get(self.thread.ident or 0)
        last = traceback.extract_stack(frame)[-1] if frame else None
        return f"{last.filename}:{last.lineno} in {last.name}" if last else "an unknown line"

    def _answer(self) -> None:
        self._asked = False

    def _begin_soon(self, call: Call) -> None:
        call.task = self.loop.create_task(self._run(call), context=call.context)

    def _cancel(self, call: Call) -> None:
        if self._pending.pop(call, self) is None:
            self._done.post((call, Returned(error=asyncio.CancelledError())))
        elif call.task is not None:
            call.task.cancel()

    async def _run(self, call: Call) -> None:
        if self._pending.pop(call, self) is not None:
            return  # another loop has it
        self.running[call] = None
        try:
            returned = Returned(await call.function())
        except (
            BaseException
        ) as error:  # SystemExit would end the loop, a cancellation is an end like any other
            returned = Returned(error=error)
        self.running.pop(call, None)
        self._done.post((call, returned))


class Pool:
    """N places. Belongs to the hub's loop; make it there."""

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self.size = size
        self.taken = 0
        self._on_free = on_free
        self._done: Mailbox[tuple[Call, Returned]] = Mailbox(asyncio.get_running_loop(), _resolve)
        self._loop = PluginLoop(self._done)
        self._old_loops: list[PluginLoop] = []
        self._limiter = anyio.CapacityLimiter(size)
        self._threads: set[asyncio.Task[None]] = set()
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

    def call_async(self, name: str, function: Callable[[], Any], context: contextvars.Context) -> Call:
        """Run a coroutine function on the plugin loop."""
        call = Call(name, function, context)
        self._loop.submit(call)
        return call

    def call_in_thread(self, name: str, function: Callable[[], Any], context: contextvars.Context) -> Call:
        """Run a plain function in a thread."""
        call = Call(name, function, context)
        self.start_in_thread(call)
        return call

    def start_in_thread(self, call: Call) -> None:
        """Run `call` in a thread."""
        task = asyncio.create_task(self._in_thread(call), context=call.context)
        self._threads.add(task)
        task.add_done_callback(self._threads.discard)

    async def _in_thread(self, call: Call) -> None:
        try:
            returned = await anyio.to_thread.run_sync(
                partial(_returned, call.function), limiter=self._limiter
            )
        except RuntimeError as error:  # no thread can be started
            returned = Returned(error=error)
        _resolve((call, returned))

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._loop.is_blocked():
                self._replace_loop()
            for old in [old for old in self._old_loops if not old.running and not old.is_blocked()]:
                old.stop()
                self._old_loops.remove(old)

    def _replace_loop(self) -> None:
        """What a blocked loop has not begun moves to a fresh one, which also gets all new runs."""
        try:
            fresh = PluginLoop(self._done)
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

    async def close(self) -> None:
        """End the plugin loops; threads that do not return are left behind."""
        self._watch.cancel()
        for loop in [self._loop, *self._old_loops]:
            loop.stop()


def _left_behind(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Only the kind: the text of an exception of a plugin may hold a secret, and this is the hub's log."""
    error = context.get("exception")
    log.warning("something that a plugin left on its event loop failed: %s", type(error).__name__)


def _resolve(ended: tuple[Call, Returned]) -> None:
    call, returned = ended
    if not call.future.done():
        call.future.set_result(returned)


def _returned(function: Callable[[], Any]) -> Returned:
    try:
        return Returned(function())
    except BaseException as error:  # SystemExit and StopIteration must not reach the event loop
        return Returned(error=error)
