"""What runs in the child of an isolated plugin: `python -m connecthub.engine.child_main <control> <life>`.

`control` is a socket to the hub, which carries the request, with the secrets, and everything else; `life` is
a pipe that ends when the hub does, however that may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from connecthub.engine import capture, outcome
from connecthub.engine.frames import Unpacker, pack
from connecthub.errors import HandlerError
from connecthub.plugins import BaseJob, RunContext
from connecthub.plugins.loader import Loader
from connecthub.security.redaction import Masker

_MASK_ANSWER_S = 10.0


class Link:
    """The child's end of the control socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._unsent: deque[bytes] = deque()
        self._rest = memoryview(b"")
        self._sending = threading.RLock()
        self._is_sending = False
        self._unpacker = Unpacker()
        self.begin = threading.Event()
        self.masked = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.on_cancel: Callable[[], None] = lambda: None

    def send(self, message: dict[str, Any]) -> None:
        """Waits while the hub has not read what was sent before. May be called in any thread.

        And by a handler of signals that comes while its own thread is sending: that one then sends for both.
        """
        self._unsent.append(pack(message))
        with self._sending:
            while (self._unsent or self._rest) and not self._is_sending:
                self._is_sending = True
                try:
                    self._send_some()
                finally:
                    self._is_sending = False

    def _send_some(self) -> None:
        if not self._rest and self._unsent:
            self._rest = memoryview(self._unsent.popleft())
        if self._rest:  # what a handler of signals that raises leaves of it is sent later
            self._rest = self._rest[self._control.send(self._rest) :]

    def request(self) -> dict[str, Any]:
        """The first message."""
        while piece := self._control.recv(1 << 16):
            for message in self._unpacker.feed(piece):
                return message
        os._exit(1)  # the hub has gone, or has changed its mind

    def listen(self) -> None:
        """Take the hub's words for as long as it lives."""
        with contextlib.suppress(OSError, ValueError):  # the plugin has closed the socket
            while piece := self._control.recv(1 << 12):
                for message in self._unpacker.feed(piece):
                    self._take(message)
            os.killpg(0, signal.SIGKILL)

    def _take(self, message: dict[str, Any]) -> None:
        if "begin" in message:
            self.begin.set()
        elif "masked" in message:
            self.masked.release()
        else:
            self.cancelled.set()
            self.on_cancel()


class LinkedLog(capture.RunLog):
    """Sends each line to the hub at once, so that no death of this process takes the last ones along."""

    def __init__(self, masker: Masker, link: Link) -> None:
        super().__init__(masker)
        self._link = link

    def add(self, level: str, source: str, text: str, created: float) -> None:
        """Masked and cut here already: a cut in the hub would not see the secrets that it goes through."""
        self._link.send({"log": [level[:50], source[:2000], self.masked(text), created]})


class Child:
    """One run in this process."""

    def __init__(self, link: Link, request: dict[str, Any]) -> None:
        self._link = link
        self._request = request
        self._masker = Masker(request["secrets"])
        self._log = LinkedLog(self._masker, link)
        self._memory_mb: int | None = None

    def run(self) -> None:
        """Load the class, wait for the word to begin, run it, and tell how it ended."""
        request = self._request
        capture.current.set(self._log)
        with capture.capturing():
            try:
                loader = Loader(tuple(request["packages"]), Path(request["path"]))
                job_class = loader.load(request["handler_path"])
            except HandlerError as error:
                self._link.send({"bad_handler": str(error)})
                return
            self._memory_mb = job_class.memory_mb
            code = loader.code(request["handler_path"])
            self._link.send({"loaded": {"memory_mb": self._memory_mb, "code": code}})
            self._link.begin.wait()
            self._call(job_class)

    def _call(self, job_class: type[BaseJob]) -> None:
        params, secrets = self._request["params"], self._request["secrets"]
        try:
            if self._memory_mb is not None:
                limit_memory(self._memory_mb)
            job = job_class()
            job.ctx = self._context()
            if inspect.iscoroutinefunction(job_class.run):
                # Told inside: what asyncio.run waits for in the end, threads for instance, is not the run.
                asyncio.run(self._run_async(lambda: job.run(params, secrets)))
            else:
                self._tell(job.run(params, secrets))
        except BaseException as error:
            self._tell_error(error)

    async def _run_async(self, begin: Callable[[], Any]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one

        def cancel() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(task.cancel)

        self._link.on_cancel = cancel
        try:
            self._tell(await begin())
        except BaseException as error:
            self._tell_error(error)
        finally:
            self._link.on_cancel = lambda: None

    def _tell(self, value: Any) -> None:
        result = outcome.encode(value, self._masker)
        self._log.close()
        self._link.send({"returned": {"json": result.json, "message": result.message}})

    def _tell_error(self, error: BaseException) -> None:
        raised = outcome.describe(error, self._masker)
        line = raised.line
        if isinstance(error, MemoryError) and self._memory_mb is not None:
            line += f"; it may use {self._memory_mb} MiB (memory_mb)"
        self._log.close()
        self._link.send({"raised": {"line": line, "trace": raised.trace, "cancelled": raised.is_cancelled}})

    def _context(self) -> RunContext:
        given = self._request["context"]
        at = given.pop("scheduled_for")
        return RunContext(
            **given,
            scheduled_for=datetime.fromisoformat(at) if at else None,
            on_mask=self._mask,
            on_progress=self._progress,
            asked_to_stop=self._link.cancelled.is_set,
        )

    def _mask(self, text: str) -> None:
        """Returns once the hub knows: what is written to a file descriptor is masked there alone."""
        self._masker.add(text)
        self._link.send({"mask": text})
        self._link.masked.acquire(timeout=_MASK_ANSWER_S)

    def _progress(self, done: int, total: int | None) -> None:
        if outcome.progress_json(done, total) is not None:
            self._link.send({"progress": [done, total]})


def limit_memory(mebibytes: int) -> None:
    """Of data, not of address space: RLIMIT_AS would count what threads and libraries only reserve."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = mebibytes << 20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def guard(life: int, control: int) -> None:
    """Leave a process behind that kills the whole group once the hub is gone, whatever the plugin does then.

    A thread could not where a plugin holds the interpreter, and a death signal from the kernel would spare
    what the plugin has started. An orphan, so that a plugin which waits for its children does not meet it.
    """
    if os.fork():
        os.wait()
        os.close(life)
        return
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for fd in (0, 1, 2, control):
        os.close(fd)
    os.read(life, 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """One run, from the request to its end."""
    fd, life = int(sys.argv[1]), int(sys.argv[2])
    guard(life, fd)
    os.set_inheritable(fd, False)  # not for what the plugin starts
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the secrets
    link = Link(socket.socket(fileno=fd))
    request = link.request()
    sys.argv[1:] = []
    sys.path[:] = request["sys_path"]
    for name, level in request["log_levels"].items():
        logging.getLogger(name).setLevel(level)
    threading.Thread(target=link.listen, name="connecthub-control", daemon=True).start()
    Child(link, request).run()


if __name__ == "__main__":
    main()
