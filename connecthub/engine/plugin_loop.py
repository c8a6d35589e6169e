"""An event loop in a thread of its own, for async plugins: one that blocks must not stop the hub's."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from connecthub.clock import boottime
from connecthub.engine import traces
from connecthub.engine.mailbox import Mailbox
from connecthub.engine.outcome import Returned

log = logging.getLogger(__name__)

BLOCKED_S = 1.0
_HELPERS = 1000  # threads for `asyncio.to_thread`, each started only where none is idle


class Call:
    """Plugin code on its way. Once it has returned `on_return` is called with how, on the hub's loop."""

    __slots__ = ("context", "function", "home", "is_interrupted", "name", "on_return", "task")

    def __init__(
        self,
        name: str,
        function: Callable[[], Any],
        context: contextvars.Context,
        on_return: Callable[[Returned], None],
    ) -> None:
        self.name = name
        self.function = function
        self.context = context
        self.on_return = on_return
        self.task: asyncio.Task[None] | None = None
        self.home: PluginLoop | None = None
        self.is_interrupted = False

    def interrupt(self) -> None:
        """Cancel the code where that is possible; a thread has to look at `ctx.cancelled` itself."""
        self.is_interrupted = True
        if self.home is not None:
            self.home.interrupt(self)

    def kill(self) -> bool:
        """End the code by force, and tell whether that was possible: here it is not, in a child it is."""
        return False


def tell(ended: tuple[Call, Returned]) -> None:
    """On the hub's loop: the code of this call has returned."""
    call, returned = ended
    call.on_return(returned)


class PluginLoop:
    """An event loop in a daemon thread, for async plugins. Make it on the hub's loop."""

    def __init__(self) -> None:
        hub, self.loop = asyncio.get_running_loop(), asyncio.new_event_loop()
        self._inbox: Mailbox[Call] = Mailbox(self.loop, self._begin_soon, hub)
        self._done: Mailbox[tuple[Call, Returned]] = Mailbox(hub, tell, self.loop)
        self._pending: dict[Call, None] = {}
        self.running: dict[Call, None] = {}
        self.pulse = boottime()
        self._asked = False
        self._stopped = False
        # A few calls that hang in asyncio's own few threads would keep all others from even finding a host.
        self.loop.set_default_executor(ThreadPoolExecutor(_HELPERS, "connecthub-helper"))
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

    @property
    def is_busy(self) -> bool:
        """Whether something waits for it."""
        return bool(self._asked or self._pending or self.running)

    def is_blocked(self) -> bool:
        """Whether the loop has not come round for BLOCKED_S; asks it to tell, for the next look.

        One that nothing waits for is left asleep.
        """
        if not self.is_busy:
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
                call.context = call.context.copy()  # this loop's task enters the old one, to find it gone
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
        return traces.place(frame, frame.f_lineno) if frame else "an unknown line"

    def _answer(self) -> None:
        self._asked = False

    def deliver(self) -> None:
        """On the hub's loop: what has returned here does not wait for what blocks this loop now."""
        self._done.deliver()

    def _begin_soon(self, call: Call) -> None:
        context = call.context  # before the look: whoever takes the call away changes it then
        if call not in self._pending:
            return  # another loop has it
        # Not by the loop's task factory, which a plugin may have set. It is the call's once it begins.
        asyncio.Task(self._run(call), loop=self.loop, context=context)

    def _cancel(self, call: Call) -> None:
        if self._pending.pop(call, self) is None:
            self._done.post((call, Returned(error=asyncio.CancelledError())))
        elif call.home is self and call.task is not None:
            call.task.cancel()

    async def _run(self, call: Call) -> None:
        self.running[call] = None  # before it is no longer pending: a loop with neither is ended
        if self._pending.pop(call, self) is not None:
            del self.running[call]
            return  # another loop has it
        call.task = asyncio.current_task()
        try:
            returned = Returned(await call.function())
        except (
            BaseException
        ) as error:  # SystemExit would end the loop, a cancellation is an end like any other
            returned = Returned(error=error)
        self.running.pop(call, None)
        self._done.post((call, returned))
