"""Plugins in a process of their own, with a hub that runs them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connecthub.engine import child
from connecthub.engine.capture import HEAD_BYTES, TAIL_BYTES
from connecthub.plugins.loader import Loader
from connecthub.storage import requests
from connecthub.storage.audit import Actor
from tests.engine.conftest import Rig, spellings_in

HANDLERS = "tests.engine.process_jobs"
_SET_CHILD_SUBREAPER = 36
CANARY = 'canary "s\\ecret" wörd/123'


def run(hub: Rig, handler: str, *, secrets: dict[str, Any] | None = None, **params: Any) -> int:
    hub.job("a", f"{HANDLERS}:{handler}", secrets=secrets, public_cfg=params)
    return hub.run("a")


def is_there(pid: int) -> bool:
    """Whether the process lives; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def told(hub: Rig, run_id: int) -> list[int]:
    """The process ids that the plugin tells as its progress."""
    progress = json.loads(hub.until(lambda: hub.row(run_id)["progress"]))
    return [pid for pid in (progress["done"], progress["total"]) if pid is not None]


def test_it_runs_in_a_process_of_its_own_as_in_a_thread(hub: Rig) -> None:
    row = hub.wait(run(hub, "TellJob", x=1))
    assert (row["status"], row["message"]) == ("SUCCESS", "told\nlook out")
    result = json.loads(row["result"])
    assert result["params"] == {"x": 1} and result["pid"] != os.getpid() == result["hub"]
    assert result["context"] == [row["id"], "a", 1, "manual", row["idempotency_key"]]
    assert json.loads(row["progress"]) == {"done": 2, "total": 5}
    for said in (
        "INFO some.library: logged {'x': 1}",
        "INFO stdout: printed",
        "INFO stderr: on stderr",
        "INFO some.library: in a thread",
        "INFO stdout: by its descriptor",
        "INFO stdout: of a command",
        "WARNING some.library: look out",
        "INFO stdout: unfinished",
    ):
        assert f"{said}\n" in row["run_log"]


def test_an_async_one_does_too(hub: Rig) -> None:
    row = hub.wait(run(hub, "AsyncTellJob", x=1))
    result = json.loads(row["result"])
    assert result["params"] == {"x": 1} and result["pid"] != os.getpid()
    assert "INFO some.library: logged {'x': 1}" in row["run_log"]


def test_no_secret_is_stored_in_clear_or_to_be_seen_at_the_process(
    hub: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECTHUB_DATABASE__URL", "postgresql://hub:canary-of-the-hub@/x")
    monkeypatch.setenv("connecthub_security__admin_password", "canary-of-the-hub")
    hub.job("a", f"{HANDLERS}:LeakJob", secrets={"password": CANARY})
    for params in ({}, {"fail": True}):
        row = hub.wait(hub.run("a", **params))
        for said in ("printed ***", "logged ***", "stderr: written ***", "stdout: written ***"):
            assert said.replace("logged ***", "logged '***'") in row["run_log"]
        assert not spellings_in(row, CANARY) and not spellings_in(row, "token-got-later")
        if params:
            assert row["message"].startswith("ValueError: refused ***") and "in run" in row["traceback"]
        else:
            result = json.loads(row["result"])
            assert (result["echo"], result["seen"], result["environ"]) == ("***", False, [])


@pytest.mark.parametrize("handler", ["WaitJob", "PoliteJob"])
def test_cancel_asks_it_to_stop(hub: Rig, handler: str) -> None:
    run_id = run(hub, handler)
    pids = told(hub, run_id)
    hub.do(requests.cancel_run(hub.db, run_id, actor=Actor("li.na", None)))
    row = hub.wait(run_id)
    assert (row["status"], row["reason"], row["lease_expires_at"]) == ("CANCELLED", "cancelled", None)
    assert not any(map(is_there, pids))
    assert "tidied up" in row["run_log"] if handler == "WaitJob" else json.loads(row["result"])["stopped"]


def test_what_does_not_heed_its_timeout_is_killed_with_all_that_it_started(hub: Rig) -> None:
    hub.job("a", f"{HANDLERS}:StubbornJob", timeout_s=1)
    run_id = hub.run("a")
    pids = told(hub, run_id)
    assert len(pids) == 2 and all(map(is_there, pids))
    row = hub.wait(run_id)
    assert (row["status"], row["reason"]) == ("FAILURE", "timeout")
    assert row["lease_expires_at"] is None, "its place is free"
    hub.until(lambda: not any(map(is_there, pids)))


def test_shutdown_kills_what_does_not_end(hub: Rig) -> None:
    run_id = run(hub, "StubbornJob")
    pids = told(hub, run_id)
    hub.stop_hub()
    row = hub.row(run_id)
    assert (row["status"], row["reason"], row["lease_expires_at"]) == ("CANCELLED", "shutdown", None)
    hub.until(lambda: not any(map(is_there, pids)))


def test_nothing_that_it_started_outlives_it(hub: Rig) -> None:
    row = hub.wait(run(hub, "StubbornJob", leave=True))
    assert row["status"] == "SUCCESS"
    hub.until(lambda: not is_there(json.loads(row["result"])["child"]))


def test_what_leaves_its_group_and_writes_for_ever_holds_up_nobody(hub: Rig) -> None:
    run_id = run(hub, "WriterJob")
    _, writer = told(hub, run_id)
    try:
        row = hub.wait(run_id)
        assert (row["status"], json.loads(row["result"])) == ("SUCCESS", {"writer": writer})
        assert row["lease_expires_at"] is None, "its place is free"
        hub.until(lambda: not is_there(writer))  # nobody reads its pipe
    finally:
        if is_there(writer):
            os.kill(writer, signal.SIGKILL)


@pytest.fixture
def process_1() -> Iterator[None]:
    """Orphans become children of this process, as in a container those of the hub do (prctl(2))."""
    prctl = ctypes.CDLL(None).prctl
    assert prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_as_process_1_of_a_container_the_hub_leaves_no_zombie(process_1: None, hub: Rig) -> None:
    assert hub.wait(run(hub, "StubbornJob", leave=True))["status"] == "SUCCESS"
    stats = [path.read_text().rpartition(")")[2].split()[:2] for path in Path("/proc").glob("[0-9]*/stat")]
    assert ["Z", str(os.getpid())] not in stats


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("_exit", "the process ended with exit status 7 and without a result"),
        ("segfault", "the process died with signal 11 (SIGSEGV)"),
        ("kill", "the process was killed with signal 9 (SIGKILL)"),
        ("exit", "SystemExit: enough"),
        ("interrupt", "KeyboardInterrupt"),
        ("stop", "StopIteration"),
        ("close", "the process ended with exit status 1 and without a result"),
        ("rubbish", "the process wrote rubbish"),
    ],
)
def test_however_it_dies_it_ends_visibly(hub: Rig, how: str, words: str) -> None:
    row = hub.wait(run(hub, "DieJob", how=how))
    assert (row["status"], row["reason"]) == ("FAILURE", "exception") and words in row["message"]
    assert "stdout: last words" in row["run_log"]
    if how == "segfault":
        assert "process_jobs.py" in row["run_log"], "the log says where"


def test_it_may_have_a_memory_limit(hub: Rig) -> None:
    hub.job("a", f"{HANDLERS}:FatJob")
    assert hub.wait(hub.run("a", little=True))["status"] == "SUCCESS"
    row = hub.wait(hub.run("a"))
    assert row["reason"] == "exception" and "it may use 200 MiB (memory_mb)" in row["message"], row["message"]
    assert row["message"].startswith("MemoryError")


def test_what_is_huge_or_rubbish_is_cut(hub: Rig) -> None:
    row = hub.wait(run(hub, "HugeJob"))
    assert row["status"] == "SUCCESS", row["message"]
    assert json.loads(row["result"])["truncated"] is True
    assert HEAD_BYTES < len(row["run_log"].encode()) < HEAD_BYTES + TAIL_BYTES + 1024


def test_a_result_that_is_no_json_is_a_visible_failure(hub: Rig) -> None:
    row = hub.wait(run(hub, "BadValueJob"))
    assert row["reason"] == "exception" and "BadResult: the result is no JSON" in row["message"]


def module(hub: Rig, name: str, text: str) -> str:
    folder = hub.settings.plugin_path / "plugged"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / f"{name}.py").write_text(text)
    return f"plugged.{name}:AnyJob"


ISOLATED = """
from connecthub.plugins import BaseJob
class AnyJob(BaseJob):
    isolation = "process"
    def run(self, params, secrets):
        return {"version": 1}
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import ctypes; ctypes.string_at(0)", "the process that loaded it died with signal 11"),
        ("import os; os._exit(3)", "the process that loaded it ended with exit status 3"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise ValueError('no luck')", "ValueError: no luck"),
    ],
)
def test_a_module_that_dies_when_imported_dies_in_the_process(hub: Rig, text: str, words: str) -> None:
    hub.job("a", module(hub, "dies", f"{text}\n{ISOLATED}"))
    row = hub.wait(hub.run("a"))
    assert (row["reason"], row["started_at"]) == ("bad_handler", None) and words in row["message"]
    assert "plugged.dies" not in sys.modules


def test_one_that_hangs_when_imported_is_killed_by_a_cancel(hub: Rig) -> None:
    mark = hub.settings.plugin_path / "pid"
    hangs = (
        f"import os, time, pathlib\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(99)"
    )
    hub.job("a", module(hub, "hangs", f"{hangs}\n{ISOLATED}"))
    run_id = hub.run("a")
    pid = int(hub.until(lambda: mark.exists() and mark.read_text()))
    hub.do(requests.cancel_run(hub.db, run_id, actor=Actor("li.na", None)))
    row = hub.wait(run_id)
    assert (row["status"], row["lease_expires_at"]) == ("CANCELLED", None)
    hub.until(lambda: not is_there(pid))


def test_it_is_read_anew_for_each_run(hub: Rig) -> None:
    hub.job("a", module(hub, "changes", ISOLATED))
    assert json.loads(hub.wait(hub.run("a"))["result"]) == {"version": 1}
    module(hub, "changes", ISOLATED.replace("1}", "22}"))
    assert json.loads(hub.wait(hub.run("a"))["result"]) == {"version": 22}


def test_it_dies_with_its_hub(hub: Rig, tmp_path: Path) -> None:
    """The hub is a process here, and SIGKILLed: nobody is left to end the plugin and what it has started."""
    code = f"""
import asyncio, tests.engine.conftest as c, pathlib, sys, time, logging
rig = c.Rig({hub.dsn!r}, pathlib.Path({str(tmp_path)!r}))
rig.start_hub()
time.sleep(3600)
"""
    hub.stop_hub()
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        run_id = run(hub, "StubbornJob")
        pids = told(hub, run_id)
        assert all(map(is_there, pids))
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    hub.until(lambda: not any(map(is_there, pids)))


def test_only_what_says_so_is_isolated(tmp_path: Path) -> None:
    loader = Loader(("tests", "connecthub"), tmp_path)
    assert loader.is_isolated(f"{HANDLERS}:TellJob")
    assert not loader.is_isolated(f"{HANDLERS}:WaitJob"), "its base says so, which only an import can tell"
    assert not loader.is_isolated("connecthub.plugins.api:BaseJob")
    assert not loader.is_isolated("tests.nowhere.at_all:AnyJob")


def test_a_handler_of_signals_may_print_while_the_plugin_does(hub: Rig) -> None:
    hub.job("a", f"{HANDLERS}:AlarmJob", timeout_s=20)
    row = hub.wait(hub.run("a"))
    assert row["status"] == "SUCCESS" and "alarm" in row["run_log"]


def test_a_variable_that_goes_while_a_child_is_started_harms_nobody() -> None:
    def come_and_go() -> None:
        while not over.is_set():
            for number in range(50):
                os.environ[f"COMES_AND_GOES_{number}"] = "1"
            for number in range(50):
                del os.environ[f"COMES_AND_GOES_{number}"]

    over, before = threading.Event(), sys.getswitchinterval()
    thread = threading.Thread(target=come_and_go)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            assert "PATH" in child._environ()
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
