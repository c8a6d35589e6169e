"""A run's own log: whatever its code logs or prints, in any thread or task it starts, masked and capped."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from connecthub.engine import traces
from connecthub.run_log import TRUNCATED
from connecthub.security.redaction import Masker

log = logging.getLogger(__name__)

HEAD_BYTES = 150 * 1024
TAIL_BYTES = 50 * 1024
_PIECE = 64 * 1024  # characters of printed text that are looked at in one go
_LONG_LINE = 1024  # bytes
_SOURCE_CHARS = 200  # of a logger's name
_MESSAGE_LINES = 50_000  # characters of WARNING lines kept for the message

Echo = Callable[[tuple[int, str], str, str, str, float], None]
_echo: Echo | None = None  # where the lines of runs go as well; set by `capturing`
current: contextvars.ContextVar[RunLog | None] = contextvars.ContextVar("connecthub_run_log", default=None)


class RunLog:
    """The log of one run: the first 150 KiB and the last 50 KiB, each line with time and level.

    Lines of any thread may come; once closed, what comes later is dropped.
    """

    def __init__(self, masker: Masker, run: tuple[int, str] | None = None) -> None:
        """`run`: its id and its Job's."""
        self.masker = masker
        self._run = run
        self.changes = 0
        self.warnings: list[str] = []
        self._warning_chars = 0
        # One that this thread may hold already: the collector may free what prints as it goes, at any point.
        self._lock = threading.RLock()
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = False  # the head is full
        self._lost = False  # lines between head and tail are gone
        self._closed = False
        self._unfinished: dict[
            tuple[str, int], str
        ] = {}  # printed without a line break yet, by stream and thread

    def add(self, level: str, source: str, text: str, created: float) -> None:
        """Add a message, one prefixed line for each of its lines; `created` in seconds since the epoch."""
        text = self.masked(text)
        if level in ("WARNING", "ERROR", "CRITICAL") and self._warning_chars < _MESSAGE_LINES:
            self.warnings.append(text)
            self._warning_chars += len(text) + 1
        source = " ".join(self.masker.text(source[: 10 * _SOURCE_CHARS]).split())[:_SOURCE_CHARS]
        prefix = f"{_second(int(created))}.{int(created % 1 * 1000):03d}Z {level} {source}: "
        lines = text.splitlines() or [""]
        with self._lock:
            is_shown = not (self._closed or self._cut)
            if not self._closed:
                for line in lines:
                    self._keep(f"{prefix}{line}\n")
                self.changes += 1
            if self._cut:
                lines = [TRUNCATED]  # a run that logs without measure may not fill the hub's log
        if is_shown and _echo is not None and self._run is not None:
            for line in lines:
                _echo(self._run, level, source, line, created)

    def masked(self, text: str) -> str:
        """`text` masked; of a huge one both ends."""
        head, tail = self.masker.ends(text, HEAD_BYTES, TAIL_BYTES)
        return head if tail is None else f"{head}\n{TRUNCATED}\n{tail}"

    def _keep(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        if not self._cut:
            room = max(HEAD_BYTES - len(self._head), 0)
            first = data if len(data) <= room else data[:room].decode("utf-8", "ignore").encode()
            self._head += first
            data = data[len(first) :]
            if not data:
                return
            self._cut = True
        self._tail += data
        over = len(self._tail) - TAIL_BYTES
        if over > 0:
            # To the end of a line; but the end of a long one is worth more than nothing.
            line_end = self._tail.find(b"\n", over - 1, over + _LONG_LINE)
            del self._tail[: over if line_end < 0 else line_end + 1]
            self._lost = True

    def write(self, stream: str, text: str) -> None:
        """Add what is printed to `stream`, line by line."""
        for begin in range(0, len(text), _PIECE):  # one search through a huge text would stop all threads
            self._write(stream, text[begin : begin + _PIECE])

    def _write(self, stream: str, text: str) -> None:
        key = (stream, threading.get_ident())
        lines, line_break, rest = (self._unfinished.pop(key, "") + text).rpartition("\n")
        if len(rest) > HEAD_BYTES:
            # Masked before it is cut, and what may be the beginning of a secret waits for its end.
            masked, held_back = self.masker.text(rest), max(self.masker.longest, 1)
            lines, line_break, rest = lines + line_break + masked[:-held_back], "\n", masked[-held_back:]
        if rest:
            self._unfinished[key] = rest
        if line_break:
            self.add("INFO", stream, lines, time.time())

    def text(self) -> str:
        """The log so far; a line [TRUNCATED] stands where its middle was left out."""
        if not self._head:
            return ""
        with self._lock:
            head, tail = (part.decode("utf-8", "ignore") for part in (self._head, self._tail))
        if not self._lost:
            return head + tail
        line_break = "" if head.endswith("\n") else "\n"
        return f"{head}{line_break}{TRUNCATED}\n{tail}"

    def close(self) -> None:
        """Take no more lines; what was printed without a line break is one."""
        for (stream, _), rest in list(self._unfinished.items()):
            self.add("INFO", stream, rest, time.time())
        with self._lock:
            self._closed = True


def belongs_to_run(record: logging.LogRecord) -> bool:
    """Whether the code that logs is a run's: then the record is for its log and not for the hub's."""
    return current.get() is not None


@functools.lru_cache(4)  # one second after the other, in which any number of lines may come
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


class _RunHandler(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock of handlers: all runs would take turns at it, and each RunLog has its own."""
        run_log = current.get()
        if run_log is not None:
            run_log.add(record.levelname, record.name, _text_of(record), record.created)
        return True


def _text_of(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # arguments that do not fit, or that cannot be shown: the line is the plugin's
        text = f"{record.msg!r} (this message could not be put together from its arguments)"
    if record.exc_info and record.exc_info[1] is not None:
        text += "\n" + traces.text_of(record.exc_info[1])
    return text


class _RunStream(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr: lines of a run go to its log, all else where it went before."""

    def __init__(self, name: str, before: TextIO) -> None:
        self._name = name
        self._before = before

    def write(self, text: str) -> int:
        run_log = current.get()
        if run_log is None:
            return self._before.write(text)
        run_log.write(self._name, text)
        return len(text)

    def flush(self) -> None:
        if current.get() is None and not self._before.closed:  # it may go after what it stands for
            self._before.flush()

    def isatty(self) -> bool:
        return current.get() is None and self._before.isatty()

    def fileno(self) -> int:
        return self._before.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class declares a plain attribute
        return self._before.encoding


@contextmanager
def capturing(echo: Echo | None = None) -> Iterator[None]:
    """While entered, logging, print, and the threads that a run starts lead to the run's own log.

    What the garbage collector tells of may come in any thread, so in any log: there only kind and place.

    `echo`, where given, is called with each masked line as well, as HubLog.echo is.
    """
    global _echo
    _echo = echo
    handler = _RunHandler()
    before = sys.stdout, sys.stderr
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    call_handlers = logging.Logger.callHandlers
    lost, ignored = asyncio.BaseEventLoop.default_exception_handler, sys.unraisablehook
    logging.getLogger().addHandler(handler)
    sys.stdout, sys.stderr = _RunStream("stdout", before[0]), _RunStream("stderr", before[1])
    logging.Logger.callHandlers = _reaching(call_handlers, handler)  # type: ignore[method-assign, assignment]
    threading.Thread.start = _inheriting_start(start)  # type: ignore[method-assign, assignment]
    ThreadPoolExecutor.submit = _inheriting_submit(submit)  # type: ignore[method-assign]
    asyncio.BaseEventLoop.default_exception_handler = _tell_of_lost  # type: ignore[method-assign, assignment]
    sys.unraisablehook = _tell_of_ignored
    try:
        yield
    finally:
        _echo = None
        asyncio.BaseEventLoop.default_exception_handler = lost  # type: ignore[method-assign]
        sys.unraisablehook = ignored
        logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]
        threading.Thread.start = start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]
        sys.stdout, sys.stderr = before
        logging.getLogger().removeHandler(handler)


def _tell_of_lost(loop: asyncio.BaseEventLoop, context: dict[str, Any]) -> None:
    """What failed in a task or callback that nobody waits for."""
    _tell(context.get("exception"))


def _tell_of_ignored(told: sys.UnraisableHookArgs) -> None:
    """What failed in a `__del__`, and the like."""
    _tell(told.exc_value)


def _tell(error: BaseException | None) -> None:
    told = "without a word" if error is None else f"{type(error).__name__} at {traces.where(error)}"
    log.warning("something that was left behind failed: %s", told)


def _reaching(
    call_handlers: Callable[[logging.Logger, logging.LogRecord], None], handler: logging.Handler
) -> Callable[[logging.Logger, logging.LogRecord], None]:
    """What a run logs at a logger that does not propagate to the root is the run's as well."""

    @functools.wraps(call_handlers)
    def call(self: logging.Logger, record: logging.LogRecord) -> None:
        call_handlers(self, record)
        logger: logging.Logger | None = self if current.get() is not None else None
        while logger is not None and logger.parent is not None:
            if not logger.propagate:
                handler.handle(record)
                return
            logger = logger.parent

    return call


def _inheriting_start(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """A thread does not inherit the ContextVars of the one that starts it; here it takes the run with it."""

    @functools.wraps(start)
    def inherit(self: threading.Thread) -> None:
        run_log = current.get()
        if run_log is not None:
            run = self.run

            def run_in_it() -> None:
                current.set(run_log)
                run()

            self.run = run_in_it  # type: ignore[method-assign]
        start(self)

    return inherit


def _inheriting_submit(submit: Any) -> Any:
    """An executor's thread may be older than the run that gives it work."""

    @functools.wraps(submit)
    def inherit(self: ThreadPoolExecutor, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if current.get() is not None:
            fn = functools.partial(contextvars.copy_context().run, fn)
        future: Future[Any] = submit(self, fn, *args, **kwargs)
        return future

    return inherit
