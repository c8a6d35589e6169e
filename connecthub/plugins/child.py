"""A child process that may import plugin modules, so that none of them can harm the hub by being looked at.

The child is `python -m <module> <fd>`. It reads one request as JSON from stdin, which keeps secrets out of
the command line and the environment, and answers in lines of JSON on a socket of its own, which keeps out
whatever a plugin prints. Whatever happens, its whole process group is killed in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

_LINE_LIMIT = 1 << 20  # bytes


class Child:
    """The hub's side: `async with Child(module, request) as child`, then `await child.line()`.

    Entering raises OSError where no process can be started. Leaving kills the process and all it started.
    """

    def __init__(self, module: str, request: dict[str, Any]) -> None:
        self._module = module
        # The child must find what the hub would find.
        self._request = json.dumps({**request, "sys_path": [str(entry) for entry in sys.path]}).encode()

    async def __aenter__(self) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:  # closed after the start, or the end of the child would not be seen
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", self._module, str(theirs.fileno())),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LINE_LIMIT)
        self._ending = asyncio.ensure_future(self._process.wait())
        self._sending = asyncio.ensure_future(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # also what a module started
        self._sending.cancel()
        self._writer.close()
        await self._ending
        await asyncio.to_thread(reap, self._process.pid)

    async def _send(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(ConnectionError):  # a child that is gone already is seen by `line`
            self._process.stdin.write(self._request)
            await self._process.stdin.drain()
        self._process.stdin.close()

    async def line(self) -> bytes:
        """The next line of the answer; empty or cut where the child ended instead."""
        reading = asyncio.ensure_future(self._reader.readline())
        try:
            await asyncio.wait([reading, self._ending], return_when=asyncio.FIRST_COMPLETED)
            # What the child wrote before its end is in the socket. Its end alone does not close the socket,
            # where a process that the module forked still holds it.
            await asyncio.wait([reading], timeout=0.5)
            return reading.result() if reading.done() else b""
        except (OSError, ValueError):  # reset, or a line beyond the limit
            return b""
        finally:
            reading.cancel()

    def end(self) -> str:
        """How the child ended, in words; to be asked after the `async with`."""
        status = self._process.returncode
        if status is not None and status < 0:
            return f"signal {-status}"
        return f"exit status {status}"


def reap(group: int) -> None:
    """Wait for what is left of a group that was killed: as process 1 of a container the hub inherits it."""
    with contextlib.suppress(ChildProcessError):  # there is nothing, or nothing of ours
        while True:
            os.waitpid(-group, 0)


def not_started(error: OSError) -> str:
    """Why a Child could not be entered, in words."""
    return (
        f"no process could be started to load it ({error.strerror}): see that this machine has memory, "
        "processes and file descriptors to spare, then try again"
    )


# --- in the child -----------------------------------------------------------------------------------------

Answer = Callable[[dict[str, Any]], None]


def serve(work: Callable[[dict[str, Any], Answer], None]) -> None:
    """Call `work(request, answer)`, then end at once: no thread or exit handler of a module is waited for."""
    answer_fd = int(sys.argv[1])
    os.set_inheritable(answer_fd, False)  # what a module starts must not keep the socket open
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the secrets
    request = json.loads(sys.stdin.buffer.read())
    sys.path[:] = request["sys_path"]
    with open(answer_fd, "wb", buffering=0) as socket_file:
        work(request, lambda data: _write(socket_file.fileno(), data))
    os._exit(0)


def end_after(seconds: float) -> None:
    """Let the kernel end this child then: should the hub be killed meanwhile, nobody else would."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _write(fd: int, data: dict[str, Any]) -> None:
    rest = json.dumps(data).encode() + b"\n"
    while rest:
        rest = rest[os.write(fd, rest) :]
