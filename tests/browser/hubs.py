"""A hub with both stand-ins beside it, for people in browsers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from connecthub.security.passwords import hash_password
from tests.program import OWN_PASSWORD, Person, Program
from tests.standins import DidiStandin, OaStandin, make_dataset

SCRIPT = "tests.browser.jobs:ScriptJob"
NEVER = "0 0 29 2 *"
ROLES = {"viewer": "zhou.min", "operator": "li.na", "admin": "admin"}
PACKAGES = {"CONNECTHUB_PLUGINS__PACKAGES": '["extensions", "tests.browser"]'}


class Hub:
    """A running hub whose accounts all have the password OWN_PASSWORD; one account per role."""

    def __init__(self, program: Program, oa: OaStandin, didi: DidiStandin, folder: Path) -> None:
        self.program, self.oa, self.didi = program, oa, didi
        self.url = program.url
        self._folder = folder
        self.scripts: list[Script] = []
        self.admin = Person(program.url)
        self.admin.sign_in(program.password)
        for role, username in ROLES.items():
            if username != "admin":
                self.sql(
                    "INSERT INTO users (username, password_hash, role) VALUES ($1, $2, $3)",
                    username,
                    hash_password(OWN_PASSWORD),
                    role,
                )

    def sql(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Straight from its database; in a thread, since Playwright keeps a loop in this one."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self.program.fetch, statement, *args).result()

    def script(self, *lines: str) -> Script:
        """A new file for a ScriptJob."""
        script = Script(self._folder / f"script-{len(self.scripts)}")
        self.scripts.append(script)
        script.add(*lines)
        return script

    def make_job(self, job_id: str, script: Script, **fields: str) -> None:
        """A Job that follows `script` and never fires by itself."""
        values = {
            "id": job_id,
            "name": f"Job {job_id}",
            "cron_expr": NEVER,
            "timezone": "Asia/Shanghai",
            "handler_path": SCRIPT,
            "public_cfg": json.dumps({"script": str(script.path)}),
            "secret_cfg": "{}",
        }
        answer = self.admin.fill("/admin/jobs/create", {**values, **fields})
        assert answer.status_code == 303, answer.text

    def run_job(self, job_id: str) -> int:
        """Start a run; its number."""
        answer = self.admin.post(f"/admin/jobs/{job_id}/run", headers={"Accept": "application/json"})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["run_id"])

    def wait_for_ends(self, runs: int) -> None:
        """Until so many runs that people have started have ended."""
        query = "SELECT count(*) FROM job_logs WHERE trigger = 'manual' AND finished_at IS NOT NULL"
        self.wait_until(lambda: self.sql(query)[0]["count"] >= runs)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Until that holds in the database."""
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end, "it does not become so:\n" + "".join(self.program.lines)
            time.sleep(0.1)


class Script:
    """What a run of a ScriptJob does, told while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def add(self, *lines: str) -> None:
        """Further lines."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))


@contextmanager
def hub_in(folder: Path, rows: int = 60) -> Iterator[Hub]:
    """A hub that keeps everything in `folder`, beside stand-ins with `rows` rows."""
    data = make_dataset(rows)
    with OaStandin(data) as oa, DidiStandin(data) as didi, Program(folder, PACKAGES) as program:
        hub = Hub(program, oa, didi, folder)
        yield hub
        for script in hub.scripts:  # or the hub would wait for what still runs
            script.add("end")
