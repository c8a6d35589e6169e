"""The hub's own log: stdout and, where a folder is given, the rotating file connecthub.log.

As text one record is one line, `2026-11-24T14:05:00.123+08:00 INFO connecthub.engine.tick: text`, in local
time; control characters are written as escapes, and the lines of a traceback follow indented by four spaces.
As JSON it is one object in ASCII: time, level, logger, message, and traceback and stack where there are such.
What is about a run has its run_id and job_id in either form.
Nothing that goes wrong with an output reaches the code that logs: lost records are counted and told later.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from io import FileIO, TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from connecthub.errors import StartupError

FILE_NAME = "connecthub.log"
_MAX_BYTES = 10 * 1024 * 1024
_BACKUPS = 5
# Chatty below WARNING; httpx and httpcore also write URLs and headers, which hold tokens.
_QUIET = ("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "apscheduler", "alembic")

# Line breaks of every kind, terminal escapes, and the marks that reverse the reading direction.
_UNSAFE = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in _UNSAFE}


# The run that the current context is about: its id, and that of its Job. Inherited by its tasks.
about_run: ContextVar[tuple[int, str] | None] = ContextVar("connecthub_about_run", default=None)


class _RunRecord(logging.LogRecord):
    """A line of a run, masked already. A type of its own: an attribute could be set by a plugin's `extra`."""

    run: tuple[int, str]


def escaped(text: str) -> str:
    """`text` with its control characters, line breaks included, as escapes."""
    return text.translate(_ESCAPES)


class HubLog:
    """The log as it is set up, until `close`."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        self._handlers = handlers

    def exclude(self, belongs_elsewhere: Callable[[logging.LogRecord], bool]) -> None:
        """Keeps records out of stdout and file for which the function says True.

        It is called in the thread and context that logs, so that it can ask a ContextVar. What a plugin logs
        is captured per run and masked there; here it would stand in clear.
        """
        for handler in self._handlers:
            handler.addFilter(lambda record: isinstance(record, _RunRecord) or not belongs_elsewhere(record))

    def echo(self, run: tuple[int, str], level: str, source: str, text: str, created: float) -> None:
        """Write a line of a run's own log, masked already; `run` is its id and its Job's."""
        number = logging.getLevelNamesMapping().get(level, logging.INFO)
        record = _RunRecord(source, number, "", 0, text, None, None)
        record.levelname, record.created, record.run = level, created, run
        for handler in self._handlers:
            if number >= handler.level:
                handler.handle(record)

    @contextmanager
    def printed(self) -> Iterator[None]:
        """While entered, what the process prints is logged instead, so that every line has the one form."""
        out, err = _Printed("stdout", sys.stdout), _Printed("stderr", sys.stderr)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield

    def close(self) -> None:
        """Takes the outputs off the root logger and closes them."""
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            with contextlib.suppress(OSError, ValueError):
                handler.close()


class _Printed(io.TextIOBase):
    """Logs what is written to it, line by line."""

    encoding = "utf-8"

    def __init__(self, name: str, before: TextIO) -> None:
        self._log = logging.getLogger(name)
        self._before = before
        self._unfinished = ""

    def write(self, text: str) -> int:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._log.info("%s", line)
        return len(text)

    def fileno(self) -> int:
        return self._before.fileno()

    def writable(self) -> bool:
        return True


def setup_logging(level: str, log_dir: Path | None, form: str = "text") -> HubLog:
    """Sends what all loggers say from `level` on to stdout and to `log_dir`/connecthub.log (None: no file).

    `form` is text or json.
    The root logger itself passes INFO even where `level` is higher: the log of a run is not the hub's.
    Raises StartupError when the file cannot be written.
    """
    handlers: list[logging.Handler] = []
    if log_dir is not None:
        handlers.append(_open_file(log_dir))
    if sys.stdout is not None:
        handlers.append(_StdoutHandler(_unbuffered(sys.stdout)))
    root = logging.getLogger()
    for handler in handlers:
        handler.setLevel(level)
        handler.setFormatter(_JsonFormatter() if form == "json" else _LineFormatter())
        root.addHandler(handler)
    _let_through(level)
    return HubLog(handlers)


def _let_through(level: str) -> None:
    logging.getLogger().setLevel(min(logging.INFO, logging.getLevelNamesMapping()[level]))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def let_through(level: str) -> Iterator[None]:
    """While entered, loggers pass what they pass in a hub; who listens is another matter."""
    loggers = [logging.getLogger(name) for name in ("", *_QUIET)]
    before = [logger.level for logger in loggers]
    _let_through(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


def _unbuffered(stream: TextIO) -> TextIO:
    """`stream` without its buffer: what its reader, gone by now, did not take is not tried again at exit."""
    try:
        handle = FileIO(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):  # it has been replaced by something that is no file
        return stream
    return TextIOWrapper(handle, encoding=stream.encoding, errors="backslashreplace", write_through=True)


def _open_file(log_dir: Path) -> _FileHandler:
    try:
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _FileHandler(log_dir / FILE_NAME)
    except OSError as error:
        raise StartupError(
            f"log file {log_dir / FILE_NAME} cannot be written: {error.strerror}; make the folder writable "
            'for this user, or set [logs] dir (CONNECTHUB_LOGS__DIR) to another one or to "off"'
        ) from None


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        run = _run_of(record)
        about = f" run_id={run[0]} job_id={run[1]}" if run else ""
        head = f"{time} {record.levelname} {record.name}{about}: {_message(record)}".translate(_ESCAPES)
        tails = (_trace(self, record), record.stack_info)
        lines = [line.translate(_ESCAPES) for text in tails if text for line in text.split("\n")]
        return "\n    ".join([head, *lines])


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        run_id, job_id = _run_of(record) or (None, None)
        fields = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "run_id": run_id,
            "job_id": job_id,
            "traceback": _trace(self, record),
            "stack": record.stack_info,
        }
        # ASCII: every control character is an escape, and any encoding of stdout can write it.
        text = json.dumps({name: value for name, value in fields.items() if value is not None})
        return text.replace("\x7f", "\\u007f")


def _run_of(record: logging.LogRecord) -> tuple[int, str] | None:
    return record.run if isinstance(record, _RunRecord) else about_run.get()


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """The traceback; exc_text holds what another handler's formatter has made of it already."""
    return record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else None)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a logging call whose arguments do not fit, or whose argument cannot be shown
        return f"{record.msg!r} (this message could not be put together from its arguments)"


class _Tolerant(logging.StreamHandler[TextIO]):
    """Counts the records that could not be written, and says so as soon as writing works again."""

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        before = self._lost
        super().emit(record)
        if before and self._lost == before:
            self._lost = 0
            super().emit(
                logging.makeLogRecord(
                    {
                        "name": __name__,
                        "levelno": logging.WARNING,
                        "levelname": "WARNING",
                        "msg": f"{before} earlier log records could not be written here",
                    }
                )
            )

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by logging inside the `except` of a failed write."""
        self._lost += 1


class _StdoutHandler(_Tolerant):
    def format(self, record: logging.LogRecord) -> str:
        encoding = self.stream.encoding or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)


class _FileHandler(_Tolerant, RotatingFileHandler):
    """10 MB x 5, mode 0600; goes on where the file was moved away, or rotated by another hub."""

    def __init__(self, path: Path) -> None:
        RotatingFileHandler.__init__(
            self, path, maxBytes=_MAX_BYTES, backupCount=_BACKUPS, encoding="utf-8", errors="backslashreplace"
        )

    def _open(self) -> TextIOWrapper:
        # Unbuffered: each record is one write, whole between those of other processes, and what failed is
        # gone rather than tried again with the next one.
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return TextIOWrapper(
            FileIO(handle, "ab"), encoding=self.encoding, errors=self.errors, write_through=True
        )

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        self._follow()
        return bool(super().shouldRollover(record))

    def doRollover(self) -> None:
        try:
            super().doRollover()
        except OSError:
            # The folder lost its permission, say: better a large file than none.
            if self.stream is None:
                self.stream = self._open()

    def _follow(self) -> None:
        """Opens the file anew where the path no longer leads to the one that is open."""
        if self.stream is None:
            return
        here = os.fstat(self.stream.fileno())
        try:
            there = os.stat(self.baseFilename)
            moved = (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)
        except FileNotFoundError:
            moved = True
        except OSError:
            moved = False  # the folder cannot be looked into any more; the open file still takes lines
        if moved:
            old, self.stream = self.stream, self._open()
            old.close()
