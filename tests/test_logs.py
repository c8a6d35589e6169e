"""The hub's log: its form, its file, and that nothing that happens to it reaches the code that logs."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import pytest

from connecthub import logs
from connecthub.errors import StartupError
from connecthub.logs import HubLog, setup_logging

Setup = Callable[..., HubLog]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d [A-Z]+ [\w.]+: ")
log = logging.getLogger("connecthub.engine.tick")


@pytest.fixture
def out() -> io.StringIO:
    """What stands for stdout, unless a test passes a stream of its own."""
    return io.StringIO()


@pytest.fixture
def setup(out: io.StringIO) -> Iterator[Setup]:
    """`setup_logging`, undone after the test."""
    loggers = [logging.getLogger(name) for name in ("", *logs._QUIET)]
    before = [logger.level for logger in loggers]
    made: list[HubLog] = []

    def call(
        level: str = "INFO", log_dir: Path | None = None, stdout: TextIO = out, form: str = "text"
    ) -> HubLog:
        with contextlib.redirect_stdout(stdout):
            made.append(setup_logging(level, log_dir, form))
        return made[-1]

    yield call
    for hub_log in made:
        hub_log.close()
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def text_of(folder: Path) -> str:
    return (folder / "connecthub.log").read_text("utf-8")


# The form


def test_one_record_is_one_line_on_stdout_and_in_the_file(
    setup: Setup, out: io.StringIO, tmp_path: Path
) -> None:
    setup("INFO", tmp_path / "deep" / "logs")
    log.info("%d Jobs due: %s", 3, "同步")
    assert LINE.sub("", out.getvalue()) == "3 Jobs due: 同步\n"
    assert " INFO connecthub.engine.tick: " in out.getvalue()
    assert text_of(tmp_path / "deep" / "logs") == out.getvalue()


@pytest.fixture
def in_shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


def test_the_time_is_local_with_its_offset(setup: Setup, out: io.StringIO, in_shanghai: None) -> None:
    setup()
    record = log.makeRecord(log.name, logging.INFO, "", 0, "text", (), None)
    record.created = datetime(2026, 11, 24, 6, 5, 0, 123456, UTC).timestamp()
    log.handle(record)
    assert out.getvalue() == "2026-11-24T14:05:00.123+08:00 INFO connecthub.engine.tick: text\n"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\nINFO forged: b", r"a\nINFO forged: b"),
        ("a\r\x1b[2J\x00\x7f\x9b", r"a\r\x1b[2J\x00\x7f\x9b"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("a\tb", r"a\tb"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_control_characters_are_escaped(setup: Setup, tmp_path: Path, given: str, shown: str) -> None:
    raw = io.BytesIO()
    hub_log = setup("INFO", tmp_path, io.TextIOWrapper(raw, "utf-8"))
    # Not through the root logger: pytest-xdist cannot send a report that holds half of a surrogate pair.
    for handler in hub_log._handlers:
        handler.handle(log.makeRecord(log.name, logging.INFO, "", 0, given, (), None))
    for text in (raw.getvalue().decode("utf-8"), text_of(tmp_path)):
        assert LINE.sub("", text) == shown + "\n"


def test_the_name_of_a_logger_forges_no_line(setup: Setup, out: io.StringIO) -> None:
    setup()
    logging.getLogger("a\nb").warning("x")
    assert r"WARNING a\nb: x" in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_a_stdout_that_knows_no_chinese(setup: Setup) -> None:
    raw = io.BytesIO()
    setup("INFO", None, io.TextIOWrapper(raw, "ascii"))
    log.info("同步")
    assert raw.getvalue().endswith(rb": \u540c\u6b65" + b"\n")


def test_tracebacks_are_indented(setup: Setup, out: io.StringIO) -> None:
    setup()
    try:
        raise ValueError("two\nlines\x1b")
    except ValueError:
        log.exception("it failed")
    first, *rest = out.getvalue().rstrip("\n").split("\n")
    assert first.endswith("ERROR connecthub.engine.tick: it failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-2:] == ["    ValueError: two", r"    lines\x1b"]
    assert all(line.startswith("    ") for line in rest)


def test_a_call_whose_arguments_do_not_fit_is_shown() -> None:
    # Straight to the formatter: pytest's own handler makes such a call an error.
    record = log.makeRecord(log.name, logging.INFO, "", 0, "%d rows", ("many",), None)
    line = logs._LineFormatter().format(record)
    assert line.endswith("'%d rows' (this message could not be put together from its arguments)")


# What is let through


def test_levels(setup: Setup, out: io.StringIO) -> None:
    setup("ERROR")
    log.warning("not this")
    log.error("this")
    assert out.getvalue().count("\n") == 1
    assert log.isEnabledFor(logging.INFO), "the log of a run holds INFO whatever the level of the hub"
    assert not log.isEnabledFor(logging.DEBUG)


def test_debug(setup: Setup, out: io.StringIO) -> None:
    setup("DEBUG")
    log.debug("fine detail")
    assert "DEBUG connecthub.engine.tick: fine detail" in out.getvalue()


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "uvicorn.access", "apscheduler.scheduler"])
def test_what_is_chatty_or_writes_tokens_is_quiet(setup: Setup, out: io.StringIO, name: str) -> None:
    setup("DEBUG")
    logging.getLogger(name).info("GET /token?secret=x")
    assert out.getvalue() == ""
    logging.getLogger(name).warning("this is shown")
    assert "this is shown" in out.getvalue()


def test_records_of_a_run_are_kept_out(setup: Setup, out: io.StringIO, tmp_path: Path) -> None:
    run: ContextVar[int | None] = ContextVar("run", default=None)
    setup("INFO", tmp_path).exclude(lambda record: run.get() is not None)

    def plugin() -> None:
        run.set(1)
        log.warning("of a run")

    thread = threading.Thread(target=plugin)
    thread.start()
    thread.join()
    log.warning("of the hub")
    for text in (out.getvalue(), text_of(tmp_path)):
        assert "of the hub" in text
        assert "of a run" not in text


def test_close_takes_everything_off(setup: Setup, out: io.StringIO, tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    setup("INFO", tmp_path).close()
    assert logging.getLogger().handlers == before
    log.warning("x")
    assert (out.getvalue(), text_of(tmp_path)) == ("", "")


# The file


def test_the_file_rotates_and_only_its_owner_reads_it(
    setup: Setup, out: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (logs._MAX_BYTES, logs._BACKUPS) == (10 * 1024 * 1024, 5)
    monkeypatch.setattr(logs, "_MAX_BYTES", 1000)
    old = os.umask(0)
    try:
        setup("INFO", tmp_path / "logs")
        for number in range(200):
            log.info("line %d", number)
    finally:
        os.umask(old)
    files = sorted((tmp_path / "logs").iterdir())
    assert [file.name for file in files] == ["connecthub.log", *(f"connecthub.log.{n}" for n in range(1, 6))]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert all(0 < file.stat().st_size <= 1000 for file in files)
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700
    assert "line 199" in text_of(tmp_path / "logs")


def test_two_hubs_in_one_folder_lose_no_line(
    setup: Setup, out: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MAX_BYTES", 1000)
    one, two = (logs._FileHandler(tmp_path / "connecthub.log") for _ in range(2))
    for number in range(60):
        for handler in (one, two):
            handler.setFormatter(logs._LineFormatter())
            handler.handle(log.makeRecord(log.name, logging.INFO, "", 0, f"line {number}.", (), None))
    kept = "".join(file.read_text() for file in sorted(tmp_path.iterdir(), reverse=True))
    numbers = [int(found) for found in re.findall(r"line (\d+)\.", kept)]
    assert numbers == [number for number in range(numbers[0], 60) for _ in range(2)][-len(numbers) :]
    assert all(file.stat().st_size > 700 for file in tmp_path.glob("*.log.*")), (
        "no file was rotated half full"
    )
    for handler in (one, two):
        handler.close()


def test_a_file_that_was_moved_away_is_made_anew(setup: Setup, out: io.StringIO, tmp_path: Path) -> None:
    setup("INFO", tmp_path)
    log.info("before")
    (tmp_path / "connecthub.log").rename(tmp_path / "moved")
    log.info("after")
    assert "before" in (tmp_path / "moved").read_text()
    assert "after" in text_of(tmp_path)


def test_a_rotation_that_fails_loses_no_line(
    setup: Setup, out: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MAX_BYTES", 300)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    setup("INFO", tmp_path)
    for number in range(20):
        log.info("line %d", number)
    assert text_of(tmp_path) == out.getvalue()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, out: io.StringIO) -> None:
    (tmp_path / "file").write_text("")
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(StartupError) as caught:
        setup_logging("INFO", tmp_path / "file" / "logs")
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot be written: Not a directory" in message
    assert 'CONNECTHUB_LOGS__DIR) to another one or to "off"' in message
    assert logging.getLogger().handlers == handlers


# Outputs that fail


class Breakable(io.StringIO):
    """A stream that can be told to fail."""

    error: OSError | None = None

    def write(self, text: str, /) -> int:
        if self.error:
            raise self.error
        return super().write(text)


def test_a_stdout_that_fails_is_told_about_later(setup: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    stream = Breakable()
    setup("INFO", None, stream)
    stream.error = OSError(errno.EIO, "Input/output error")
    log.info("lost 1")
    log.info("lost 2")
    stream.error = None
    log.info("kept")
    log.info("and on")
    lines = [LINE.sub("", line) for line in stream.getvalue().splitlines()]
    assert lines == ["kept", "2 earlier log records could not be written here", "and on"]
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_costs_lines_and_nothing_else(
    setup: Setup, out: io.StringIO, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "connecthub.log"
    path.symlink_to("/dev/full")
    setup("INFO", tmp_path)
    log.info("lost")
    path.unlink()
    log.info("kept")
    lines = [LINE.sub("", line) for line in text_of(tmp_path).splitlines()]
    assert lines == ["kept", "1 earlier log records could not be written here"]
    assert "lost" in out.getvalue()
    assert capfd.readouterr().err == ""


def test_a_reader_that_goes_away_stops_nothing() -> None:
    program = (
        "import logging, os, sys\n"
        "from connecthub.logs import setup_logging\n"
        "setup_logging('INFO', None)\n"
        "sys.stdin.readline()\n"
        "for size in (1, 9000, 1): logging.info('x' * size)\n"
        "os.write(2, b'alive')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.stderr.read() == "alive"
    assert process.wait() == 0
    process.stderr.close()


# JSON, and the lines of runs


def test_json_is_one_object_a_line_whatever_is_logged(setup: Setup, out: io.StringIO, tmp_path: Path) -> None:
    setup("INFO", tmp_path, form="json")
    log.info("同步\n\x1b[2J\x7f\x9b\u202e")
    try:
        raise ValueError("two\nlines\x1b")
    except ValueError:
        log.exception("it failed")
    assert out.getvalue() == text_of(tmp_path)
    assert all(32 <= ord(letter) < 127 for letter in out.getvalue().replace("\n", ""))
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["message"] == "同步\n\x1b[2J\x7f\x9b\u202e" and "traceback" not in first
    assert (first["level"], first["logger"]) == ("INFO", "connecthub.engine.tick")
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert second["traceback"].endswith("ValueError: two\nlines\x1b")


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_about_a_run_says_so(setup: Setup, out: io.StringIO, form: str) -> None:
    hub_log = setup("INFO", None, form=form)
    hub_log.exclude(lambda record: True)  # what a run itself logs, unmasked
    log.warning("not this", extra={"run": (1, "forged")})
    hub_log.echo((7, "oa\nsync"), "WARNING", "some.library", "masked", 0.0)
    (line,) = out.getvalue().splitlines()
    if form == "text":
        assert LINE.sub("", line) == line, "the ids stand before the colon"
        assert line.endswith(r" WARNING some.library run_id=7 job_id=oa\nsync: masked")
    else:
        fields = json.loads(line)
        assert (fields["run_id"], fields["job_id"], fields["message"]) == (7, "oa\nsync", "masked")


def test_what_is_printed_is_logged_where_every_line_must_be_json(setup: Setup, out: io.StringIO) -> None:
    with setup("INFO", None, form="json").printed():
        print("half ", end="")
        print("a line")
        print("and more", file=sys.stderr)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(one["logger"], one["message"]) for one in told] == [
        ("stdout", "half a line"),
        ("stderr", "and more"),
    ]
