"""What the service manager is told over its socket: it is ready, it works, it stops (man sd_notify)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

# sysexits.h: by this status the unit tells settings that are wrong from what another start may mend.
_EX_CONFIG = 78
_FEEDS = 4  # in the time after which systemd takes the hub for dead
_BEYOND_GRACE_S = 30  # what the unit leaves a stop, too, for all that ends after the runs


def status_of_wrong_settings(environ: Mapping[str, str] = os.environ) -> int:
    """The exit status where the settings are wrong: 2, but 78 where a service manager hears it."""
    return _EX_CONFIG if environ.get("NOTIFY_SOCKET") else 2


@asynccontextmanager
async def told(
    standstill: Callable[[], str | None],
    grace_s: float,
    environ: MutableMapping[str, str] = os.environ,
) -> AsyncIterator[None]:
    """While this is entered systemd knows the hub as ready; its watchdog is fed while nothing stands still.

    `standstill` says what does, or None. A stop may take `grace_s` and a little more, whatever the unit says
    of it. Without a NOTIFY_SOCKET nothing is told; that is taken out of the environment, so that nothing a
    plugin starts can speak for the hub.
    """
    address = environ.pop("NOTIFY_SOCKET", "")
    watchdog_s = int(environ.pop("WATCHDOG_USEC", "0")) / 1e6
    is_ours = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not address:
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        _tell(channel, "READY=1")
        feeding = asyncio.create_task(
            _feed(channel, watchdog_s / _FEEDS if is_ours else 0, standstill), name="watchdog"
        )
        try:
            yield
        finally:
            feeding.cancel()
            _tell(channel, "STOPPING=1")
            _tell(channel, f"EXTEND_TIMEOUT_USEC={(grace_s + _BEYOND_GRACE_S) * 1e6:.0f}")


async def _feed(channel: socket.socket, every_s: float, standstill: Callable[[], str | None]) -> None:
    said = None
    while every_s:
        problem = standstill()
        if problem is None:
            _tell(channel, "WATCHDOG=1")
        elif problem != said:
            log.error("%s: systemd will start the hub again", problem)
        said = problem
        await asyncio.sleep(every_s)


def _tell(channel: socket.socket, state: str) -> None:
    with contextlib.suppress(OSError):  # a manager that does not listen now gets the next one
        channel.send(state.encode())
