"""The commands for authors of Jobs: new-job, run-once, dev, and the fixture that runs a Job in a test."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
from pydantic import BaseModel

from connecthub import new_job
from connecthub.errors import RefusedError
from connecthub.plugins import BaseJob
from connecthub.testing import Ran
from tests.program import AS_OTHERS, ROOT
from tests.web_hub import fetch, run

pytest_plugins = ["connecthub.testing"]

CANARY = "canary-77ab-token"
JOBS = """
import asyncio
import logging
import os
import sys
import time

from connecthub import new_job
from connecthub.errors import RefusedError
from connecthub.plugins import BaseJob

print("imported")


class EchoJob(BaseJob):
    def run(self, params, secrets):
        logging.info("with %s \\x1b[2J", secrets["token"])
        print("printed")
        print("on stderr", file=sys.stderr)
        self.ctx.mask("found-out")
        return {"params": params, "token": secrets["token"], "found": "found-out"}


class IsolatedJob(EchoJob):
    isolation = "process"


class FailJob(BaseJob):
    async def run(self, params, secrets):
        raise ValueError(f"no luck with {secrets['token']}")


class WaitJob(BaseJob):
    async def run(self, params, secrets):
        print("begun")
        await asyncio.sleep(600)


class GateJob(BaseJob):
    def run(self, params, secrets):
        print("at the gate")
        while not os.path.exists("gate"):
            time.sleep(0.05)


class StubbornJob(BaseJob):
    def run(self, params, secrets):
        print("begun")
        while True:
            time.sleep(1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to work in, with the package `devjobs`."""
    package = tmp_path / "devjobs"
    package.mkdir()
    (package / "jobs.py").write_text(JOBS)
    (tmp_path / "params.json").write_text('{"x": 1}')
    (tmp_path / "secrets.json").write_text(json.dumps({"token": CANARY}))
    (tmp_path / "config.toml").write_text('[plugins]\npackages = ["devjobs"]\n')
    return tmp_path


def environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTHUB_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def connecthub(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "connecthub", *words],
        cwd=folder,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_once(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return connecthub(
        folder, "run-once", f"devjobs.jobs:{name}", "--params", "params.json", "--secrets", "secrets.json"
    )


# run-once


@pytest.mark.parametrize("name", ["EchoJob", "IsolatedJob"])
def test_run_once_prints_the_result_and_shows_the_log(folder: Path, name: str) -> None:
    done = run_once(folder, name)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"params": {"x": 1}, "token": "***", "found": "***"}
    lines = done.stderr.splitlines()
    assert any(line.endswith(r"INFO root: with *** \x1b[2J") for line in lines), done.stderr
    assert any(line.endswith("INFO stdout: printed") for line in lines)
    assert any(line.endswith("INFO stderr: on stderr") for line in lines)
    assert lines[-1] == "SUCCESS" and CANARY not in done.stderr
    assert not (folder / "data").exists(), "no database, no key, no log file"


def test_run_once_tells_how_a_run_failed(folder: Path) -> None:
    done = run_once(folder, "FailJob")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError: no luck with ***" in done.stderr and "devjobs/jobs.py" in done.stderr
    assert done.stderr.endswith("FAILURE (exception)\n") and CANARY not in done.stderr


@pytest.mark.parametrize(("name", "signals"), [("WaitJob", 1), ("StubbornJob", 2)])
def test_ctrl_c_cancels_and_twice_it_ends(folder: Path, name: str, signals: int) -> None:
    command = [sys.executable, "-m", "connecthub", "run-once", f"devjobs.jobs:{name}"]
    process = subprocess.Popen(command, cwd=folder, env=environ(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for wanted in ["begun", "cancelling"][:signals]:
        for line in process.stderr:
            if wanted in line:
                break
        process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(90) == 130
    assert ("CANCELLED (cancelled)" in rest) == (signals == 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["devjobs.jobs:GoneJob"], "has no class GoneJob"),
        (["os.path:Job"], "outside the allowed packages"),
        (["devjobs.jobs:EchoJob", "--params", "list.json"], "--params list.json is no JSON object"),
        (["devjobs.jobs:EchoJob", "--secrets", "broken.json"], "--secrets broken.json is not JSON (line 2)"),
        (["devjobs.jobs:EchoJob", "--secrets", "none.json"], "none.json"),
    ],
)
def test_what_cannot_be_run_is_one_line(folder: Path, words: list[str], told: str) -> None:
    (folder / "list.json").write_text("[1]")
    (folder / "broken.json").write_text('{"token":\n canary-secret')
    done = connecthub(folder, "run-once", *words)
    assert done.returncode == 2 and told in done.stderr.splitlines()[-1], done.stderr
    assert "canary-secret" not in done.stderr and "Traceback" not in done.stderr


# new-job


def test_a_new_job_passes_its_own_test_and_runs(tmp_path: Path) -> None:
    made = connecthub(tmp_path, "new-job", "greet-people")
    assert made.returncode == 0, made.stderr
    job = tmp_path / "extensions" / "greet_people" / "job.py"
    test = tmp_path / "tests" / "test_greet_people.py"
    ruff = [str(Path(sys.executable).parent / "ruff"), "check", "--config", str(ROOT / "pyproject.toml")]
    checked = subprocess.run(
        [*ruff, "--ignore", "S,I", "."], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0 and "4 passed" in tested.stdout, tested.stdout + tested.stderr
    (tmp_path / "s.json").write_text('{"token": "made-up-token"}')
    said = next(line for line in made.stdout.splitlines() if line.startswith("run it:"))
    words = said.partition("connecthub ")[2].split()
    ran = connecthub(tmp_path, *words, "--secrets", "s.json")
    assert json.loads(ran.stdout)["greeted"] == 0, ran.stderr
    assert "would greet Li Na" in ran.stderr

    written = job.read_text()
    again = connecthub(tmp_path, "new-job", "greet_people")
    assert again.returncode == 2 and "is there already" in again.stderr and job.read_text() == written


@pytest.mark.parametrize(
    "name", ["", "Greet", "1st", "../up", "class", "json", "a b", "grüße", "tests", "-x"]
)
def test_a_bad_name_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError) as refused:
        new_job.write(name, tmp_path, "extensions")
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_a_folder_that_this_user_may_not_enter_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    done = subprocess.run(
        [*AS_OTHERS, sys.executable, "-m", "connecthub", "new-job", "greet"],
        cwd=tmp_path,
        env=environ() | {"CONNECTHUB_PLUGINS__PATH": str(closed / "plugins")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "cannot be written: Permission denied" in done.stderr


# The fixture


class TellJob(BaseJob):
    """Tells of everything that a run can."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.ctx.mask("a-found-token")
        self.ctx.progress(1, 2)
        print("a-found-token", secrets["token"])
        if self.ctx.cancelled:
            return {"stopped": True}
        self.ctx.progress(2, 2)
        return {
            "message": "all told",
            "trigger": self.ctx.trigger,
            "key": self.ctx.idempotency_key,
            "attempt": self.ctx.attempt,
        }


class SlowJob(BaseJob):
    """Ends where it is cancelled."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        await asyncio.sleep(30)


class DeafJob(BaseJob):
    """Heeds nothing, until the test lets it go."""

    released = threading.Event()

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.released.wait(30)


class TypedJob(TellJob):
    """Needs a parameter."""

    class Params(BaseModel):
        base_url: str


def test_the_fixture_gives_all_that_a_hub_would_store(run_job: Callable[..., Ran]) -> None:
    at = datetime(2026, 11, 24, 6, 5, tzinfo=UTC)
    ran = run_job(TellJob, None, {"token": CANARY}, scheduled_for=at, attempt=2)
    assert (ran.status, ran.reason, ran.message, ran.traceback) == ("SUCCESS", None, "all told", "")
    assert ran.result["key"] == "job:2026-11-24T06:05:00+00:00" and ran.result["attempt"] == 2
    assert ran.result["trigger"] == "schedule" and ran.progress == [(1, 2), (2, 2)]
    assert ran.masked == ["a-found-token"] and "INFO stdout: *** ***" in ran.log


def test_the_fixture_cancels_fails_and_refuses(run_job: Callable[..., Ran]) -> None:
    cancelled = run_job(TellJob, {}, {"token": CANARY}, cancel_at=1)
    assert (cancelled.status, cancelled.result) == ("CANCELLED", {"stopped": True})
    failed = run_job(TellJob, {}, {})
    assert (failed.status, failed.reason, failed.message) == ("FAILURE", "exception", "KeyError: 'token'")
    with pytest.raises(ValueError, match="public_cfg base_url"):
        run_job(TypedJob, {}, {})


def test_the_fixture_ends_what_takes_too_long(run_job: Callable[..., Ran]) -> None:
    """Also what goes on all the same: the author's tests must come to an end."""
    both = [run_job(job, timeout_s=0.01) for job in (SlowJob, DeafJob)]
    DeafJob.released.set()
    assert [(ran.status, ran.reason) for ran in both] == [("FAILURE", "timeout")] * 2


# dev


class Dev:
    """`connecthub dev` in a folder; `lines` come as they are printed."""

    def __init__(self, folder: Path, dsn: str, port: int = 0, path: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "connecthub", "dev"],
            cwd=folder,
            env={
                **environ(),
                "PYTHONPATH": str(path),
                "CONNECTHUB_DATABASE__URL": dsn,
                "CONNECTHUB_SERVER__PORT": str(port),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        self._come = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            with self._come:
                self.lines.append(line)
                self._come.notify_all()
        with self._come:
            self.lines.append("ended")
            self._come.notify_all()

    def wait(self, text: str, times: int = 1) -> None:
        """Until so many lines with `text` have come."""
        with self._come:
            came = self._come.wait_for(lambda: sum(text in line for line in self.lines) >= times, 90)
        assert came, "".join(self.lines)

    def end(self) -> None:
        """Kill it; its hub must end too, which closes the pipe."""
        self.process.kill()
        self._reader.join(90)
        assert not self._reader.is_alive(), "the hub outlived the process that started it"


@contextmanager
def developing(folder: Path, dsn: str, path: Path = ROOT) -> Iterator[Dev]:
    dev = Dev(folder, dsn, path=path)
    try:
        dev.wait("ConnectHub is at")
        yield dev
    finally:
        dev.end()


def test_dev_starts_again_on_a_change_and_takes_its_hub_along(folder: Path, dsn: str) -> None:
    with developing(folder, dsn) as dev:
        (folder / "devjobs" / "jobs.py").write_text(JOBS + "\n# changed\n")
        dev.wait("jobs.py changed: the hub drains and starts again")
        dev.wait("ConnectHub is at", 2)
        told = "".join(dev.lines)
        assert told.index("connecthub.daemon: stopped") < told.rindex("ConnectHub is at"), told
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(90) == 0
        dev.wait("connecthub.daemon: stopped", 2)


def test_ctrl_c_while_it_drains_lets_the_run_end(folder: Path, dsn: str) -> None:
    handler = "devjobs.jobs:GateJob"
    run(
        fetch(
            dsn, f"INSERT INTO jobs (id, cron_expr, handler_path) VALUES ('gate', '0 0 1 1 *', '{handler}')"
        )
    )
    with developing(folder, dsn) as dev:
        words = [sys.executable, "-m", "connecthub", "job", "run", "gate"]
        subprocess.run(words, cwd=folder, env={**environ(), "CONNECTHUB_DATABASE__URL": dsn}, check=True)
        dev.wait("at the gate")
        (folder / "devjobs" / "jobs.py").write_text(JOBS + "\n# changed\n")
        dev.wait("stopping: no new runs")
        dev.process.send_signal(signal.SIGINT)
        dev.wait("a second signal ends it at once")
        (folder / "gate").touch()
        assert dev.process.wait(90) == 0
    assert run(fetch(dsn, "SELECT status FROM job_logs"))[0]["status"] == "SUCCESS"


def test_dev_follows_the_hubs_own_code_and_a_mistake_in_it(folder: Path, dsn: str) -> None:
    """On a copy of the hub, whose code may be broken and mended."""
    shutil.copytree(ROOT / "connecthub", folder / "connecthub")
    code = folder / "connecthub" / "clock.py"
    whole = code.read_text()
    with developing(folder, dsn, path=folder) as dev:
        code.write_text(whole + "def (")
        dev.wait("clock.py changed: the hub drains and starts again")
        dev.wait("SyntaxError")
        code.write_text(whole)
        dev.wait("ConnectHub is at", 2)


def test_a_hub_ends_with_a_killed_dev(folder: Path, dsn: str) -> None:
    with developing(folder, dsn) as dev:
        dev.process.kill()
        dev.wait("connecthub.daemon: stopped")


def test_dev_waits_for_a_change_where_the_hub_cannot_start(folder: Path, dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dev = Dev(folder, dsn, port=taken.getsockname()[1])
        dev.wait("cannot be listened at")
    try:
        (folder / "devjobs" / "jobs.py").write_text(JOBS + "\n# changed\n")
        dev.wait("ConnectHub is at")
    finally:
        dev.end()
