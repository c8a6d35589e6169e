"""An installation without a running hub, and the command line on it.

A pytest plugin: test modules name it in `pytest_plugins` to get the fixture `site`. They import from it as
well, before pytest could rewrite its asserts: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest

from connecthub import cli
from connecthub.security.vault import Vault
from connecthub.storage import keys
from connecthub.storage.database import Database
from tests.program import ROOT

PLUGINS = """
from connecthub.plugins import BaseJob

class GoodJob(BaseJob):
    def run(self, params, secrets):
        return {}
"""


class Site:
    """An installation on a database of the tests: data folder, a package of plugins, the command line."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.dsn, self.folder, self.data = dsn, folder, folder / "data"
        self.data.mkdir(mode=0o700)
        package = folder / "checkjobs"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "job.py").write_text(PLUGINS)
        self.vault = Vault.open(self.data / "fernet.key", may_create=True)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONNECTHUB_")},
            "PYTHONPATH": str(ROOT),
            "CONNECTHUB_DATA__DIR": str(self.data),
            "CONNECTHUB_DATABASE__URL": dsn,
            "CONNECTHUB_PLUGINS__PACKAGES": '["checkjobs"]',
            "CONNECTHUB_PLUGINS__PATH": str(folder),
        }

    def command(self, *words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """A command to its end: the program's own entry point, in this process, which starts it at once."""
        said, complained = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environ | environ, clear=True),
            patch.object(sys, "argv", ["connecthub", *words]),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
        ):
            try:
                cli.main()
                status: Any = 0
            except SystemExit as exit:
                status = int(exit.code or 0)
        return subprocess.CompletedProcess(words, status, said.getvalue(), complained.getvalue())

    def process(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, as a process of its own: in this one other plugins may have been loaded."""
        process = self.start(*words)
        said, _ = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, said, "")

    def killed(self, point: str, *words: str) -> None:
        """A command that is killed when it passes the failpoint."""
        process = self.start(*words, CONNECTHUB_FAILPOINT=point)
        process.communicate()
        assert process.returncode == -9

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """A command as a process of its own, still going."""
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "connecthub", *words],
            cwd=self.folder,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            text=True,
        )

    def check(self, status: int = 0, **environ: str) -> dict[str, list[str]]:
        """The lines by name, each with its state."""
        done = self.command("check", **environ)
        assert done.returncode == status, done.stdout + done.stderr
        assert not done.stderr
        lines: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            state, rest = line.split(maxsplit=1)
            name, _, text = rest.partition(": ")
            assert state in ("ok", "warning", "fault") and text
            lines.setdefault(name, []).append(f"{state}: {text}")
        return lines

    def sql(self, *statements: str) -> None:
        async def work() -> None:
            connection = await asyncpg.connect(self.dsn)
            for statement in statements:
                await connection.execute(statement)
            await connection.close()

        asyncio.run(work())

    def job(
        self, job_id: str, cron: str = "0 * * * *", handler: str = "checkjobs.job:GoodJob", **more: Any
    ) -> None:
        columns = {"id": job_id, "cron_expr": cron, "handler_path": handler, **more}
        literals = ", ".join(f"'{value}'" for value in columns.values())
        self.sql(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({literals})")

    def leave_canary(self) -> None:
        async def work() -> None:
            database = await Database.open(self.dsn)
            await keys.store_canary(database, self.vault.canary())
            await database.close()

        asyncio.run(work())


@pytest.fixture
def site(tmp_path: Path, dsn: str) -> Site:
    return Site(tmp_path, dsn)
