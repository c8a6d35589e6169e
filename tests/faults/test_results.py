"""What a plugin returned is stored, whatever the database does meanwhile."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import needs
from tests.faults.stage import CANARY, Hub, Stage


def spool(stage: Stage) -> list[Path]:
    return sorted((stage.folder / "data" / "spool").glob("*.jsonl"))


def returning_in_an_outage(stage: Stage, hub: Hub, runs: int) -> list[int]:
    """Runs that return while the server is gone, and wait in the spool file; their ids."""
    until = stage.folder / "until"
    for number in range(runs):
        stage.job(f"job-{number}", "WaitForFileJob", {"until": str(until)})
    ids = [stage.run(f"job-{number}") for number in range(runs)]
    stage.until(lambda: len(stage.told("begin")) == runs)
    stage.crash_server()
    until.touch()
    stage.until(lambda: len(stage.told("end")) == runs)
    stage.until(lambda: spool(stage) and spool(stage)[0].read_bytes().count(b"\n") == runs)
    return ids


@pytest.mark.ci
def test_runs_that_end_while_the_server_is_down(stage: Stage) -> None:
    hub = stage.hub()
    ids = returning_in_an_outage(stage, hub, 6)
    [file] = spool(stage)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and CANARY not in file.read_text()
    ready = f"{hub.url}/health/ready"
    stage.until(lambda: "6 ends of runs" in httpx.get(ready).json()["checks"]["spool"])
    assert httpx.get(ready).status_code == 503
    stage.start_server()
    for run_id in ids:
        assert json.loads(stage.wait(run_id)["result"])["attempt"] == 1
    stage.until(lambda: not spool(stage))
    verdict = stage.judge()
    assert verdict.is_clean and verdict.lost == 0, dict(verdict.faults)


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_the_next_hub_stores_what_the_last_one_left_on_disk(stage: Stage, end: str) -> None:
    hub = stage.hub()
    ids = returning_in_an_outage(stage, hub, 6)
    if end == "killed":
        stage.kill(hub)
    else:
        assert hub.stop() == 0
    [file] = spool(stage)
    left = file.read_bytes()
    stage.start_server()
    stage.hub()
    for run_id in ids:
        assert json.loads(stage.wait(run_id)["result"])["attempt"] == 1
    stage.until(lambda: not spool(stage))
    before = [dict(stage.row(run_id)) for run_id in ids]
    file.write_bytes(left)  # once more, as if the hub had died before it could delete the file
    stage.until(lambda: not spool(stage))
    assert [dict(stage.row(run_id)) for run_id in ids] == before
    stage.killed.clear()  # these results must be there although their hub was killed
    assert stage.judge().is_clean


@pytest.mark.parametrize("hub_is", ["there", "killed", "stopped"])
def test_what_a_plugin_returns_after_its_end_is_stored_too(stage: Stage, hub_is: str) -> None:
    """Its timeout was stored; the server goes, the code returns, and with it perhaps the hub."""
    until = stage.folder / "until"
    stage.job("a", "WaitForFileJob", {"until": str(until), "stubborn": True}, timeout_s=1)
    hub = stage.hub()
    run_id = stage.run("a")
    stage.wait(run_id, "FAILURE")
    stage.crash_server()
    until.touch()
    stage.until(lambda: stage.told("end") and spool(stage) and spool(stage)[0].read_bytes().endswith(b"\n"))
    assert CANARY not in spool(stage)[0].read_text()
    if hub_is == "killed":
        stage.kill(hub)
    elif hub_is == "stopped":
        assert hub.stop() == 0
    stage.start_server()
    if hub_is != "there":
        stage.hub()
    meta = stage.until(lambda: found if "late_result" in (found := stage.meta(run_id)) else None)
    assert json.loads(meta["late_result"])["attempt"] == 1 and meta["returned_late"] == "value"
    stage.until(lambda: not spool(stage))
    row = stage.row(run_id)
    assert (row["status"], row["reason"], row["lease_expires_at"]) == ("FAILURE", "timeout", None)
    stage.killed.clear()  # it must be there although its hub was killed
    assert stage.judge().is_clean


@pytest.mark.parametrize(
    "statements",
    [["INSERT INTO job_logs", "COMMIT"], ["WITH ready AS"], ["SET status = e.status"]],
    ids=["tick", "claim", "end"],
)
def test_an_answer_that_never_came_is_not_repeated_blindly(stage: Stage, statements: list[str]) -> None:
    """The server has done it, and the answer is swallowed."""
    proxy = stage.proxy()
    for number in range(10):
        stage.job(f"job-{number}", "AsyncJob", {"seconds": 0.2}, cron_expr="* * * * *", misfire="all")
    first = stage.make_due(3)
    proxy.swallow = statements
    stage.hub(proxy)
    assert proxy.swallowed.wait(20)
    stage.until(lambda: stage.value("SELECT count(*) >= 40 FROM job_logs WHERE status = 'SUCCESS'"))
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean and verdict.lost == 0, dict(verdict.faults)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False
    )
    needs("a tmpfs that may be mounted (root)", mounted.returncode == 0)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_keeps_the_ends_in_memory(stage: Stage) -> None:
    with small_disk(stage.folder / "data" / "spool"):
        filler = stage.folder / "data" / "spool" / "filler"
        filler.write_bytes(b"x" * (4 * 1024 * 1024 - 4096 * 2))
        hub = stage.hub()
        until = stage.folder / "until"
        stage.job("a", "WaitForFileJob", {"until": str(until), "says": "x" * 100_000})
        run_id = stage.run("a")
        stage.until(lambda: stage.told("begin"))
        stage.crash_server()
        until.touch()
        stage.until(lambda: "No space left" in hub.log)
        stage.start_server()
        assert json.loads(stage.wait(run_id)["result"])["attempt"] == 1
        verdict = stage.judge()
        assert verdict.is_clean, dict(verdict.faults)
        stage.kill(hub)
