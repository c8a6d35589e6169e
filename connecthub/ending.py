"""How the process is told to end, and that it does end."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_OVERTIME_S = 10.0  # beyond the grace a shutdown takes no longer, whatever happens
_TELL_S = 0.5


def on_signals(stop: asyncio.Event, grace_s: float) -> None:
    """From now on the first signal sets `stop`, and a second one ends the process at once.

    Not by the loop's own handlers, which wait until the loop gets to them: it may be what stands still.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(1)
        asked = True
        # Should anything hold it up, a plugin the interpreter itself, say, a thread outside of it tells where
        # the others stand, and ends the process. Should its words find no way out, the system does; but not
        # process 1 of a container, to which the kernel sends no alarm that it has no handler for.
        late = grace_s + _OVERTIME_S - _TELL_S
        faulthandler.dump_traceback_later(late, exit=True, file=sys.__stderr__ or 2)
        signal.setitimer(signal.ITIMER_REAL, grace_s + _OVERTIME_S)
        loop.call_soon_threadsafe(stop.set)

    for number in _NUMBERS:
        signal.signal(number, on_signal)
    os.register_at_fork(before=_hold, after_in_parent=_let, after_in_child=_forget)


def _hold() -> None:
    """A signal that comes before the child has its own handlers would be lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _let() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)


def _forget() -> None:
    """What a plugin forks is no hub: it ends when it is told to."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    _let()
