"""A hub in a thread with a loop of its own, beside the test."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from connecthub.config import Settings, load_settings
from connecthub.engine import capture
from connecthub.engine.hub import Hub
from connecthub.metrics import Metrics
from connecthub.plugins.loader import Loader
from connecthub.security.vault import Vault
from connecthub.storage import requests, runs
from connecthub.storage.audit import Actor
from connecthub.storage.database import ENGINE_SETTINGS, Database
from tests.engine import sample_jobs

JOBS = "tests.engine.sample_jobs"
ENDED = ("SUCCESS", "FAILURE", "CANCELLED", "LOST", "SKIPPED")
NEVER = "0 0 29 2 *"
EXPIRED = (
    "INSERT INTO job_logs"
    " (job_id, revision_id, trigger, status, idempotency_key, worker_id, lease_expires_at)"
    " SELECT id, revision_id, 'manual', 'RUNNING', 'k', gen_random_uuid(), clock_timestamp() - interval '1 s'"
    " FROM jobs RETURNING id, clock_timestamp() AS now"
)


def spellings_in(row: asyncpg.Record, secret: str) -> list[str]:
    """The columns of a row in which a secret stands, as it is or as texts of Python or JSON have it."""
    spellings = {secret, repr(secret)[1:-1]}
    spellings |= {json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)}
    return [name for name, value in row.items() if any(one in str(value) for one in spellings)]


class Rig:
    """The test's side: a hub that runs, and SQL beside it. Every call blocks."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.vault = Vault.open(folder / "fernet.key", may_create=True)
        self.settings: Settings = load_settings(
            None,
            {
                "CONNECTHUB_PLUGINS__PACKAGES": '["tests", "plugged"]',
                "CONNECTHUB_PLUGINS__PATH": str(folder),
                "CONNECTHUB_POOL__SIZE": "4",
                "CONNECTHUB_POOL__LEASE_S": "2",
                "CONNECTHUB_POOL__SHUTDOWN_GRACE_S": "0.2",
                "CONNECTHUB_DATA__DIR": str(folder),
            },
        )
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.db = self.do(Database.open(dsn))
        self._capture = ExitStack()
        self.hubs: list[tuple[Hub, Database]] = []

    def do(self, work: Any, timeout_s: float = 30) -> Any:
        """The result of a coroutine on the rig's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def reap(self) -> list[int]:
        """Turn what has lost its lease into LOST, as a hub does."""

        async def reap() -> list[int]:
            async with self.db.transaction() as connection:
                return await runs.reap(connection)

        lost: list[int] = self.do(reap())
        return lost

    def start_hub(self) -> Hub:
        async def start() -> Hub:
            db = await Database.open(self.dsn, settings=ENGINE_SETTINGS)
            loader = Loader(self.settings.plugins.packages, self.settings.plugin_path)
            hub = Hub(db, self.vault, loader, self.settings, Metrics())
            await hub.start()
            self.hubs.append((hub, db))
            return hub

        # Entered here and not in a fixture: pytest gives each phase of a test a sys.stdout of its own.
        self._capture.enter_context(capture.capturing() if not self.hubs else nullcontext())
        hub: Hub = self.do(start())
        return hub

    def stop_hub(self) -> None:
        async def stop() -> None:
            hub, db = self.hubs.pop()
            await hub.stop()
            await db.close()

        self.do(stop())

    def close(self) -> None:
        sample_jobs.released.set()
        while self.hubs:
            self.stop_hub()
        self._capture.close()
        self.do(self.db.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        for name in [name for name in sys.modules if name.partition(".")[0] == "plugged"]:
            del sys.modules[name]  # the next test has a folder of its own

    def sql(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = self.do(self.db.fetch(statement, *args))
        return rows

    def job(
        self, job_id: str, handler: str, *, secrets: dict[str, Any] | None = None, **columns: Any
    ) -> None:
        """Insert a Job; it never fires by itself unless cron_expr says so."""
        columns = {
            "cron_expr": NEVER,
            "handler_path": handler if ":" in handler else f"{JOBS}:{handler}",
        } | columns
        if "public_cfg" in columns:
            columns["public_cfg"] = json.dumps(columns["public_cfg"])
        if secrets is not None:
            columns["secret_cfg"] = self.vault.encrypt(secrets)
        names = ", ".join(columns)
        marks = ", ".join(f"${number}" for number in range(2, len(columns) + 2))
        self.sql(f"INSERT INTO jobs (id, {names}) VALUES ($1, {marks})", job_id, *columns.values())

    def job_that_loads_slowly(self, job_id: str) -> None:
        """A Job whose handler, when it is imported, waits until sample_jobs.released is set."""
        folder = self.settings.plugin_path / "plugged"
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "slow.py").write_text(
            "from tests.engine import sample_jobs\n"
            "sample_jobs.begun.set()\n"
            "sample_jobs.released.wait(30)\n"
            "class AnyJob(sample_jobs.CountedJob): pass\n"
        )
        self.job(job_id, "plugged.slow:AnyJob")

    def run(self, job_id: str, **params: Any) -> int:
        run_id: int = self.do(
            requests.request_run(self.db, job_id, actor=Actor("test", None), params=params or None)
        )
        return run_id

    def row(self, run_id: int) -> asyncpg.Record:
        return self.sql("SELECT * FROM job_logs WHERE id = $1", run_id)[0]

    def wait(self, run_id: int, *statuses: str) -> asyncpg.Record:
        """The run's row as soon as its status is one of `statuses` (any end by default)."""
        wanted = statuses or ENDED
        row: asyncpg.Record = self.until(
            lambda: found if (found := self.row(run_id))["status"] in wanted else None
        )
        return row

    def until(self, look: Callable[[], Any], timeout_s: float = 120) -> Any:
        """What `look` returns, as soon as that is something; the database has no signal for every change."""

        end = time.monotonic() + timeout_s
        while not (found := look()):
            assert time.monotonic() < end, f"did not happen within {timeout_s} s"
            time.sleep(0.02)
        return found


@pytest.fixture
def rig(dsn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    """SQL beside a hub that is not started yet."""
    sample_jobs.released.clear()
    sample_jobs.begun.clear()
    sample_jobs.calls.clear()
    caplog.set_level(logging.INFO)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    rig = Rig(dsn, tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def hub(rig: Rig) -> Rig:
    """The same with a hub that runs."""
    rig.start_hub()
    return rig
