"""What plugins say, raise and return beyond all measure harms neither the hub nor the run's record.

The flood is 64 MB and not a gigabyte, for the sake of the fast tier: memory is asserted not to grow with it.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from connecthub.engine.capture import HEAD_BYTES, TAIL_BYTES, RunLog, capturing
from connecthub.run_log import TRUNCATED
from connecthub.security.redaction import Masker
from tests.engine import sample_jobs
from tests.engine.conftest import Rig

HANDLERS = "tests.engine.limit_jobs"
SECRET = "canary-of-the-plugin"


def peak_mb() -> float:
    """The most memory that this process ever had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextmanager
def loop_lag(hub: Rig) -> Iterator[list[float]]:
    """Seconds by which the hub's loop was late, at each 20 ms of the block."""
    lags: list[float] = []

    async def look() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            lags.append(time.monotonic() - before - 0.02)

    task = asyncio.run_coroutine_threadsafe(look(), hub.loop)
    yield lags
    task.cancel()


@contextmanager
def unwatched() -> Iterator[None]:
    """Without pytest's own handlers, which format and keep every record; each phase has new ones."""
    root = logging.getLogger()
    kept = [handler for handler in root.handlers if type(handler).__module__ == "_pytest.logging"]
    for handler in kept:
        root.removeHandler(handler)
    yield
    for handler in kept:
        root.addHandler(handler)


@pytest.mark.parametrize(("how", "most_mb"), [("lines", 30), ("logged", 450), ("printed", 450)])
def test_a_flood_of_log_takes_bounded_memory_and_stops_nobody(rig: Rig, how: str, most_mb: int) -> None:
    """A single line of 100 MB exists several times for a moment: where it is made, joined and formatted."""
    rig.start_hub()
    rig.job("a", f"{HANDLERS}:FloodJob", public_cfg={"how": how}, secrets={"password": SECRET})
    before = peak_mb()
    with unwatched(), loop_lag(rig) as lags:
        row = rig.wait(rig.run("a"))
    took = row["finished_at"] - row["started_at"]
    print(f"{how}: {peak_mb() - before:.0f} MiB, lag {max(lags):.3f} s, {took}")
    assert row["status"] == "SUCCESS", row["message"]
    log = row["run_log"]
    assert "first x" in log.splitlines()[0] and log.endswith("last\n") and f"{TRUNCATED}\n" in log
    assert HEAD_BYTES - 1024 <= len(log.encode()) <= HEAD_BYTES + TAIL_BYTES + 1024
    assert how == "lines" or "***" in log
    assert SECRET[:8] not in log
    assert peak_mb() - before < most_mb
    assert max(lags) < 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("stop", "StopIteration: x"),
        ("generator", "GeneratorExit: x"),
        ("exit", "SystemExit: x"),
        ("interrupt", "KeyboardInterrupt: x"),
        ("unshown", "UnshownError: (the exception cannot be shown)"),
        ("huge", f"xxx{TRUNCATED}"),
        ("lines", f"x x{TRUNCATED}"),
        ("led to it", "ValueError: after that"),
        ("rubbish", "ValueError: a\\x00b\\ud800c"),
    ],
)
def test_whatever_is_raised_is_a_visible_failure(hub: Rig, what: str, words: str) -> None:
    hub.job("a", f"{HANDLERS}:RaisesJob", public_cfg={"what": what}, secrets={"password": SECRET})
    with loop_lag(hub) as lags:
        row = hub.wait(hub.run("a"))
    assert (row["status"], row["reason"]) == ("FAILURE", "exception")
    assert words in row["message"] and len(row["message"]) <= 50_000 and len(row["traceback"]) <= 50_000
    assert "limit_jobs.py" in row["traceback"], "where it was raised"
    assert max(lags) < 1


@pytest.mark.parametrize("notes", [None, 5, [1, "two"]])
def test_an_exception_with_odd_notes_is_logged_and_raised_like_any_other(hub: Rig, notes: object) -> None:
    hub.job("a", f"{HANDLERS}:OddNotesJob", public_cfg={"notes": notes})
    row = hub.wait(hub.run("a"))
    assert row["message"].startswith("ValueError: noted oddly\n")  # and what it has logged
    for shown in (row["traceback"], row["run_log"]):
        assert "limit_jobs.py" in shown and "ValueError: noted oddly" in shown


def test_an_exception_is_shown_in_its_own_thread(hub: Rig) -> None:
    hub.job("a", f"{HANDLERS}:RaisesJob", public_cfg={"what": "slow"})
    hub.job("b", "tests.engine.sample_jobs:EchoJob")
    run_id = hub.run("a")
    assert sample_jobs.begun.wait(10)
    assert hub.wait(hub.run("b"))["status"] == "SUCCESS", "the hub goes on meanwhile"
    sample_jobs.released.set()
    assert "SlowError: at last" in hub.wait(run_id)["message"]


def test_a_line_that_is_slow_to_put_together_holds_up_no_other_run(rig: Rig) -> None:
    rig.start_hub()
    rig.job("a", f"{HANDLERS}:SlowLineJob")
    rig.job("b", "tests.engine.sample_jobs:EchoJob")
    with unwatched():
        run_id = rig.run("a")
        assert sample_jobs.begun.wait(10)
        assert "echo {}" in rig.wait(rig.run("b"))["run_log"]
        sample_jobs.released.set()
        assert "it came at last" in rig.wait(run_id)["run_log"]


@pytest.mark.parametrize(
    ("what", "deep", "status", "words"),
    [
        ("huge", 0, "SUCCESS", TRUNCATED),
        ("numbers", 0, "SUCCESS", None),
        ("keys", 0, "SUCCESS", None),
        ("tuple keys", 0, "FAILURE", "BadResult: the result is no JSON"),
        ("raises", 0, "FAILURE", "RuntimeError: no i"),
        ("deep", 90, "SUCCESS", None),
        ("deep", 900, "SUCCESS", None),
        ("deep", 100_000, "FAILURE", "BadResult: the result is no JSON"),
        ("ring", 0, "FAILURE", "BadResult: the result is no JSON"),
        ("number", 0, "FAILURE", "BadResult: the result is no JSON"),
    ],
)
@pytest.mark.parametrize("secrets", [None, {"password": SECRET, "pin": 1234}])
def test_whatever_is_returned_ends_visibly(
    hub: Rig, what: str, deep: int, status: str, words: str | None, secrets: dict[str, Any] | None
) -> None:
    hub.job("a", f"{HANDLERS}:ReturnsJob", public_cfg={"what": what, "deep": deep}, secrets=secrets)
    with loop_lag(hub) as lags:
        row = hub.wait(hub.run("a"))
    print(f"{what} {deep}: lag {max(lags):.3f} s")
    assert row["status"] == status, row["message"]
    assert words is None or words in row["message"]
    assert what not in ("huge", "numbers") or json.loads(row["result"])["truncated"] is True
    if what == "numbers":
        cut, pin = json.loads(row["result"]), '"***"' if secrets else "1234"
        assert cut["bytes"] == 52_888_899 and cut["head"].startswith('{"all": [0, 1, 2, 3')
        assert f"1233, {pin}, 1235" in cut["head"] and len(cut["head"]) == 10_000
    assert max(lags) < 1


def test_an_async_plugin_that_catches_its_cancellation_keeps_its_place(hub: Rig) -> None:
    hub.job("a", f"{HANDLERS}:SwallowJob", timeout_s=1)
    row = hub.wait(hub.run("a"))
    assert (row["status"], row["reason"]) == ("FAILURE", "timeout")
    assert sample_jobs.begun.is_set() and row["lease_expires_at"] is not None
    sample_jobs.released.set()
    hub.until(lambda: hub.row(row["id"])["lease_expires_at"] is None)


def test_what_a_thread_says_after_its_run_has_ended_is_dropped(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.start_hub()
    rig.job("a", f"{HANDLERS}:LateJob")
    row = rig.wait(rig.run("a"))
    sample_jobs.released.set()
    assert sample_jobs.begun.wait(10)
    assert "in time" in row["run_log"] and rig.row(row["id"])["run_log"] == row["run_log"]
    assert "too late" not in capsys.readouterr().err


def test_a_module_that_ends_the_program_when_imported_fails_alone(hub: Rig) -> None:
    folder = hub.settings.plugin_path / "plugged"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "exits.py").write_text("import sys\nsys.exit(3)\n")
    hub.job("a", "plugged.exits:AnyJob")
    hub.job("b", "tests.engine.sample_jobs:EchoJob")
    row = hub.wait(hub.run("a"))
    assert row["reason"] == "bad_handler" and "SystemExit: 3" in row["message"]
    assert hub.wait(hub.run("b"))["status"] == "SUCCESS"


def test_a_stream_may_end_after_the_one_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with capturing():
        stream = sys.stdout
    sys.stdout.close()
    stream.close()  # as the interpreter does with what is left
    assert stream.closed


def test_what_prints_as_it_is_collected_does_not_stop_its_thread() -> None:
    """The collector comes at any point, and so where the thread holds the lock of its log."""
    masker = Masker({"token": SECRET})
    run_log = RunLog(masker)

    class Farewell:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            run_log.add("INFO", "farewell", SECRET, 0.0)

    def log() -> None:
        for number in range(400):
            gc.set_threshold(1 + number % 50)
            Farewell()
            masker.add(f"another-secret-{number}")
            run_log.add("INFO", "log", f"one\ntwo\nanother-secret-{number}", 0.0)

    thread = threading.Thread(target=log, daemon=True)
    before = gc.get_threshold()
    try:
        thread.start()
        thread.join(20)
    finally:
        gc.set_threshold(*before)
    assert not thread.is_alive()
    text = run_log.text()
    assert "secret" not in text and SECRET not in text and text.count("farewell: ***") > 100
