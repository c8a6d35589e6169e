"""The lines of runs in the log of the real program: each with its run and its Job, and no secret in any."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

from connecthub.engine import capture
from connecthub.run_log import TRUNCATED
from connecthub.security.redaction import Masker
from connecthub.security.vault import Vault
from connecthub.storage import requests
from connecthub.storage.audit import Actor
from connecthub.storage.database import Database
from tests.program import Program

CANARY = "canary-5d1e\x1b[31m-pass"
JOBS = """
import asyncio
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from connecthub.plugins import BaseJob

alone = logging.getLogger("alone")
alone.propagate = False


def tell(secrets):
    secret = secrets["token"]
    for speak in (logging.getLogger("library").warning, alone.info, print):
        speak(f"marker {secret}\\nmarker again \\x1b[2J")
    print("marker", secret, file=sys.stderr)
    try:
        raise ValueError(f"marker {secret!r}")
    except ValueError:
        logging.exception("marker in trouble")


def tell_from_threads(secrets):
    thread = threading.Thread(target=tell, args=(secrets,))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(tell, secrets).result()


class LoopJob(BaseJob):
    async def run(self, params, secrets):
        tell(secrets)
        await asyncio.gather(asyncio.to_thread(tell, secrets), asyncio.sleep(0))


class ThreadJob(BaseJob):
    def run(self, params, secrets):
        tell(secrets)
        tell_from_threads(secrets)
        raise RuntimeError(f"marker {secrets['token']}")


class ProcessJob(BaseJob):
    isolation = "process"

    def run(self, params, secrets):
        tell(secrets)
        tell_from_threads(secrets)
        subprocess.run(["echo", "marker", secrets["token"]], check=True)
        os.write(2, b"marker by its descriptor\\n")
"""


async def run_all(dsn: str, vault: Vault) -> dict[int, str]:
    """One run of each kind, to its end; the Job of each by the run's id."""
    database = await Database.open(dsn, size=1)
    jobs: dict[int, str] = {}
    for kind in ("Loop", "Thread", "Process"):
        await database.execute(
            "INSERT INTO jobs (id, cron_expr, handler_path, secret_cfg) VALUES ($1, '0 0 29 2 *', $2, $3)",
            kind.lower(),
            f"lines.jobs:{kind}Job",
            vault.encrypt({"token": CANARY}),
        )
        run_id = await requests.request_run(database, kind.lower(), actor=Actor("test", None))
        jobs[run_id] = kind.lower()
    end = time.monotonic() + 90
    while await database.fetchval("SELECT count(*) FROM job_logs WHERE finished_at IS NULL"):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    await database.close()
    return jobs


def test_each_line_of_a_run_has_its_ids_and_no_secret(tmp_path: Path, dsn: str) -> None:
    package = tmp_path / "lines"
    package.mkdir()
    (package / "jobs.py").write_text(JOBS)
    environ = {
        "CONNECTHUB_DATABASE__URL": dsn,
        "CONNECTHUB_PLUGINS__PATH": str(tmp_path),
        "CONNECTHUB_PLUGINS__PACKAGES": '["lines"]',
        "CONNECTHUB_LOGS__FORMAT": "json",
        "CONNECTHUB_LOGS__RUNS": "true",
    }
    with Program(tmp_path, environ) as program:
        vault = Vault.open(program.data / "fernet.key", may_create=False)
        jobs = asyncio.run(run_all(dsn, vault))
        program.stop()
    printed, filed = "".join(program.lines), (program.data / "logs" / "connecthub.log").read_text()
    for text in (printed, filed):
        told = [json.loads(line) for line in text.splitlines()]
        assert "\x1b" not in text and "canary-5d1e" not in text
        assert base64.b64encode(CANARY.encode()).decode()[:12] not in text
        assert {jobs.get(one.get("run_id")) == one.get("job_id") for one in told} == {True}
        marked = [one for one in told if "marker" in one["message"] or "marker" in one.get("traceback", "")]
        assert all("run_id" in one for one in marked)
        counts: dict[Any, int] = {job: sum(one["job_id"] == job for one in marked) for job in jobs.values()}
        # tell() makes 10 lines: twice in loop, three times in thread and process, where two more follow.
        assert counts == {"loop": 20, "thread": 30, "process": 32}, text


def test_a_run_that_logs_without_measure_does_not_fill_the_log_of_the_hub() -> None:
    lines: list[str] = []
    with capture.capturing(lambda run, level, source, text, created: lines.append(text)):
        log = capture.RunLog(Masker({}), (7, "a"))
        for number in range(100_000):
            log.add("INFO", "plugin", f"line {number}", 0.0)
    assert lines[0] == "line 0" and lines[-1] == TRUNCATED
    assert lines.count(TRUNCATED) == 1 and sum(map(len, lines)) < capture.HEAD_BYTES
