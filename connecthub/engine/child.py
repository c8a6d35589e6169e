"""The hub's side of an isolated plugin: a child process for one run, and whatever may become of it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import contextvars
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from connecthub.clock import boottime
from connecthub.engine import outcome
from connecthub.engine.frames import Unpacker, pack
from connecthub.engine.held import HeldRun, LeaseStale, Withdrawn
from connecthub.engine.outcome import PluginError, Result
from connecthub.engine.plugin_loop import Call
from connecthub.errors import HandlerError
from connecthub.plugins.child import reap

LOAD_TIMEOUT_S = 60.0  # an import that takes longer hangs
_LOOK_S = 0.2  # so often a process is looked at whose pipes somebody else holds
_EXIT_S = 1.0  # after its last word a process may tidy up for so long
_PIECE = 1 << 16
_LAST_READS = 16  # of each pipe, in pieces: as much as one holds where nobody but root has made it larger


class NotLoaded(HandlerError):
    """The child could not load the handler."""


class Child(Call):
    """A call in a child process. `interrupt` and `kill` come from the hub's loop, all else is in a thread."""

    def __init__(self, name: str, run: HeldRun, request: dict[str, Any]) -> None:
        """`request` is what `child_main.Child` takes."""
        super().__init__(name, self._supervise, contextvars.copy_context(), run.code_returned)
        self._run = run
        self._request = request
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_begun = False
        self._is_killed = False
        self._deadline = boottime() + LOAD_TIMEOUT_S
        self._answer: Result | PluginError | NotLoaded | None = None
        self._memory_mb: int | None = None
        self._unpacker = Unpacker()
        self._selector = selectors.DefaultSelector()

    def interrupt(self) -> None:
        """Ask the plugin to stop; where it has not begun, nothing is lost by a kill."""
        with self._lock:
            if self._is_begun:
                self._say({"cancel": True})
            else:
                self._kill()

    def kill(self) -> bool:
        """End the whole process group now. False where that was done before."""
        with self._lock:
            was_killed = self._is_killed
            self._kill()
        return not was_killed

    def _kill(self) -> None:
        self._is_killed = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _supervise(self) -> Result:
        """Run the child to its end. Raises what `Runner` understands of what went wrong."""
        with ExitStack() as stack:
            self._control, theirs = map(stack.enter_context, socket.socketpair())
            life = [
                stack.enter_context(open(fd, "rb" if not end else "wb", 0))
                for end, fd in enumerate(os.pipe())
            ]
            stack.enter_context(self._selector)
            process = stack.enter_context(_start(theirs.fileno(), life[0].fileno()))
            theirs.close()  # or the child's end would not be seen
            status = self._follow(process)
        if isinstance(self._answer, Result):
            return self._answer
        raise self._answer or self._died(status)

    def _follow(self, process: subprocess.Popen[bytes]) -> int | None:
        """Its exit status; None where it had to be ended."""
        assert process.stdout is not None and process.stderr is not None  # noqa: S101 - they were asked for
        try:
            with self._lock:
                self._process = process
                if self._is_killed:
                    self._kill()
            self._selector.register(self._control, selectors.EVENT_READ, self._take_messages)
            self._selector.register(process.stdout, selectors.EVENT_READ, self._to_log("stdout"))
            self._selector.register(process.stderr, selectors.EVENT_READ, self._to_log("stderr"))
            self._request_run()
            while process.poll() is None and boottime() < self._deadline:
                self._read_once(process, _LOOK_S)
            status = process.poll()
        finally:
            self._end(process)
        self._read_what_is_left(process)
        return status

    def _read_what_is_left(self, process: subprocess.Popen[bytes]) -> None:
        """What the group wrote before its end is in the pipes. What left the group may write on for ever."""
        for _ in range(_LAST_READS):
            if not (self._selector.get_map() and self._read_once(process, 0)):
                return

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Nothing of the group survives its run; the guard in it keeps its number from being another's."""
        with self._lock:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            self._process = None
        process.wait()
        reap(process.pid)

    def _request_run(self) -> None:
        self._control.settimeout(LOAD_TIMEOUT_S)
        with contextlib.suppress(OSError):  # its end is seen all the same
            self._control.sendall(pack(self._request))
        self._control.settimeout(None)

    def _read_once(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Take what has come, waiting so long for it; whether something came."""
        if not self._selector.get_map():  # it has closed everything, or is about to end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        ready = self._selector.select(seconds) if self._selector.get_map() else []
        for key, _ in ready:
            try:
                piece = os.read(key.fd, _PIECE)
            except OSError:  # a process that ends with something unread resets its socket
                piece = b""
            if not piece:
                self._selector.unregister(key.fileobj)
            key.data(piece)
        return bool(ready)

    def _to_log(self, stream: str) -> Callable[[bytes], None]:
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

        def take(piece: bytes) -> None:
            self._run.log.write(stream, decoder.decode(piece, not piece))

        return take

    def _take_messages(self, piece: bytes) -> None:
        if not piece:
            self._exit_soon()
            return
        try:
            for message in self._unpacker.feed(piece):
                for kind, value in message.items():
                    self._take(kind, value)
        except (LeaseStale, Withdrawn):
            raise
        except Exception:  # nothing that this module's other half sends
            self._answer = PluginError("the process wrote rubbish where it tells the hub how it ended", None)
            self._selector.unregister(self._control)
            self._exit_soon()

    def _exit_soon(self) -> None:
        self._deadline = boottime() + _EXIT_S

    def _take(self, kind: str, value: Any) -> None:
        run = self._run
        if kind == "log":
            level, source, text, created = value
            run.log.add(str(level), str(source), str(text), float(created))
        elif kind == "progress":
            run.tell_progress(*value)
        elif kind == "mask":
            run.masker.add(value)
            with self._lock:
                self._say({"masked": True})
        elif kind == "loaded":
            self._memory_mb = value["memory_mb"]
            self._run.code = self._named(value["code"])
            self._begin()
        elif self._answer is None:
            self._answer = self._ended(kind, value)
            self._exit_soon()

    def _named(self, code: dict[str, Any] | None) -> dict[str, str] | None:
        """Which code it says it has loaded. No plugin may write what it likes into a run's meta."""
        known = {name: (code or {}).get(name) for name in ("module", "sha256", "commit")}
        clean = {
            name: outcome.clean(self._run.masker.text(text[:500])) for name, text in known.items() if text
        }
        return clean or None

    def _begin(self) -> None:
        with self._lock:
            if not self._is_killed:
                self._run.begin()
                self._is_begun = True
                self._deadline = float("inf")
                self._say({"begin": True})

    def _ended(self, kind: str, value: Any) -> Result | PluginError | NotLoaded:
        """The child's last word. Masked once more: the hub trusts no plugin with that."""
        masker = self._run.masker
        if kind == "returned":
            text = value["json"]
            stored = None if text is None else outcome.result_json(json.loads(text), masker)
            return Result(stored, str(value["message"]))
        if kind == "raised":
            trace = outcome.clean(masker.text(str(value["trace"])))[-outcome.MESSAGE_CHARS :]
            return PluginError(
                masker.text(str(value["line"])), trace, is_cancelled=value["cancelled"] is True
            )
        return NotLoaded(value)

    def _died(self, status: int | None) -> BaseException:
        """Why a process ended without a last word."""
        if self._is_killed:
            return asyncio.CancelledError()
        path = self._request["handler_path"]
        if not self._is_begun and status is None and boottime() >= self._deadline:
            return NotLoaded(f"{path} did not finish loading within {LOAD_TIMEOUT_S:.0f} s")
        what = _cause(status)
        if not self._is_begun:
            return NotLoaded(f"{path}: the process that loaded it {what}")
        limit = f"; it may use {self._memory_mb} MiB (memory_mb)" if self._memory_mb else ""
        return PluginError(f"the process {what}{limit}", None)

    def _say(self, message: dict[str, Any]) -> None:
        """Never waits: a child that does not listen is killed after the grace."""
        with contextlib.suppress(OSError):
            self._control.send(pack(message), socket.MSG_DONTWAIT)


def _start(control: int, life: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [
            *(sys.executable, "-u", "-X", "faulthandler"),
            *("-m", "connecthub.engine.child_main", str(control), str(life)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=[control, life],
        start_new_session=True,
        env=_environ(),
    )


def _environ() -> dict[str, str]:
    """The hub's own, without what may hold its secrets."""
    return {
        name: value
        for name in list(os.environ)
        if not name.upper().startswith("CONNECTHUB_") and name != "PGPASSWORD"
        if (value := os.environ.get(name)) is not None  # a plugin may take one out meanwhile
    }


def log_levels() -> dict[str, int]:
    """The levels that the hub's loggers have, so that a child logs what a thread would."""
    loggers = {"": logging.getLogger(), **logging.getLogger().manager.loggerDict}
    return {
        name: logger.level
        for name, logger in list(loggers.items())
        if isinstance(logger, logging.Logger) and logger.level
    }


def _cause(status: int | None) -> str:
    if status is None:
        return "closed its connection to the hub"
    if status >= 0:
        return f"ended with exit status {status} and without a result"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:
        name = ""
    if -status == signal.SIGKILL:
        return f"was killed with signal 9{name}: by a person, or by the system for want of memory"
    return f"died with signal {-status}{name}"
