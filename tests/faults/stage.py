"""A case's own stage: a PostgreSQL, proxies before it, hubs on it, and the witness beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from connecthub.cron import fires_between
from connecthub.security.vault import Vault
from connecthub.storage import requests
from connecthub.storage.audit import Actor
from connecthub.storage.database import Database
from connecthub.storage.embedded import EmbeddedPostgres
from connecthub.storage.pending import migrate
from tests.faults.history import Verdict, judge
from tests.faults.proxy import Proxy
from tests.program import Person, Program

JOBS = "tests.faults.jobs"
NEVER = "0 0 29 2 *"
CANARY = "canary-5c81d9f3"
LEASE_S = 4.0
PASSWORD = "a password of the stage"
ACTOR = Actor("the stage", None)


class Hub(Program):
    """A hub as a process, on the stage's database."""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, SIGKILL unless told otherwise."""
        self.process.send_signal(number)

    def person(self) -> Person:
        """Someone who has signed in here."""
        person = Person(self.url)
        person.sign_in(PASSWORD)
        return person

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return "".join(self.lines)


class Stage:
    """Used as a context manager. All calls block; SQL goes straight to the server, past every proxy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.witness = folder / "witness.jsonl"
        self.hubs: list[Hub] = []
        self.proxies: list[Proxy] = []
        self.killed: set[int] = set()
        self.stopped: set[int] = set()
        self._thread = ThreadPoolExecutor(1)
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.postgres: EmbeddedPostgres = self.do(EmbeddedPostgres.start(self.folder / "server"))
        self.do(migrate(self.postgres.dsn))
        self.db: Database = self.do(Database.open(self.postgres.dsn, size=3))
        self.vault = Vault.open(self.folder / "data" / "fernet.key", may_create=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hub in self.hubs:
            if hub.process.poll() is None:
                hub.kill(signal.SIGCONT)
                hub.kill()
                hub.process.wait(10)
        for proxy in self.proxies:
            proxy.close()
        self.do(self.db.close())
        self.do(self.postgres.stop())
        self._thread.shutdown()

    def do(self, work: Any) -> Any:
        """The result of a coroutine."""
        return self._thread.submit(self._loop.run_until_complete, work).result(60)

    def proxy(self) -> Proxy:
        """A new proxy before the server."""
        folder = self.folder / "server" / "postgres"
        sockets = sorted(folder.glob(".s.PGSQL.*[0-9]"))
        proxy = Proxy(str(sockets[0]))
        self.proxies.append(proxy)
        return proxy

    def hub(self, proxy: Proxy | None = None, **environ: str) -> Hub:
        """Start a hub, behind `proxy` where one is named; returns when it answers."""
        hub = Hub(self.folder, {**self.settings(proxy), **environ})
        hub.__enter__()
        self.hubs.append(hub)
        return hub

    def settings(self, proxy: Proxy | None = None) -> dict[str, str]:
        """The environment of a hub, or of a command, on this stage."""
        url = self.postgres.dsn
        if proxy is not None:
            url = f"postgresql://connecthub@127.0.0.1:{proxy.port}/connecthub?sslmode=disable"
        return {
            "CONNECTHUB_DATABASE__URL": url,
            "CONNECTHUB_DATA__DIR": str(self.folder / "data"),
            "CONNECTHUB_LOGS__DIR": "off",
            "CONNECTHUB_PLUGINS__PACKAGES": '["tests"]',
            "CONNECTHUB_POOL__LEASE_S": str(LEASE_S),
            "CONNECTHUB_POOL__SIZE": "8",
            "CONNECTHUB_POOL__SHUTDOWN_GRACE_S": "2",
            "CONNECTHUB_SECURITY__ADMIN_PASSWORD": PASSWORD,
        }

    def hub_that_dies(self, point: str) -> Hub:
        """A hub that is killed when it passes `point` the first time; returns when it is gone."""
        hub = Hub(self.folder, {**self.settings(None), "CONNECTHUB_FAILPOINT": point})
        try:
            hub.__enter__()
        except AssertionError:  # it may not even live long enough to print its address
            assert hub.process.poll() is not None
        self.hubs.append(hub)
        self.killed.add(hub.process.pid)
        hub.process.wait(60)
        return hub

    def fires(self, first: datetime) -> dict[str, list[datetime]]:
        """What was due from `first` until the last tick, by `connecthub.cron` itself."""
        last = self.until(lambda: self.value("SELECT max(ticked_at) FROM hubs"))
        before = first - timedelta(seconds=1)
        return {
            job["id"]: fires_between(job["cron_expr"], job["timezone"], before, last, 100_000)
            for job in self.sql("SELECT id, cron_expr, timezone FROM jobs WHERE cron_expr <> $1", NEVER)
        }

    def kill(self, hub: Hub) -> None:
        """Kill a hub, and wait until it is gone."""
        self.killed.add(hub.process.pid)
        hub.kill()
        hub.process.wait(10)

    def sql(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Rows of a statement."""
        rows: list[asyncpg.Record] = self.do(self.db.fetch(statement, *args))
        return rows

    def value(self, statement: str, *args: Any) -> Any:
        """The first column of the first row."""
        return self.do(self.db.fetchval(statement, *args))

    def job(self, job_id: str, handler: str, params: Mapping[str, Any] = {}, **columns: Any) -> None:
        """Insert a Job of tests/faults/jobs.py; it never fires by itself unless cron_expr says so."""
        columns = {
            "cron_expr": NEVER,
            "timezone": "UTC",
            "handler_path": f"{JOBS}:{handler}",
            "public_cfg": json.dumps({"witness": str(self.witness), **params}),
            "secret_cfg": self.vault.encrypt({"token": CANARY}),
        } | columns
        marks = ", ".join(f"${number}" for number in range(2, len(columns) + 2))
        statement = f"INSERT INTO jobs (id, {', '.join(columns)}) VALUES ($1, {marks})"
        self.sql(statement, job_id, *columns.values())

    def make_due(self, minutes: int, job_id: str | None = None) -> datetime:
        """As if nothing had ticked since `minutes` ago; that fire time."""
        moment: datetime = self.value(
            "SELECT date_trunc('minute', clock_timestamp()) - make_interval(mins => $1)", minutes
        )
        self.sql(
            "UPDATE jobs SET next_run_at = $1::timestamptz,"
            " schedule_from = $1::timestamptz - interval '1 minute' WHERE $2::text IS NULL OR id = $2",
            moment,
            job_id,
        )
        return moment

    def first_mark(self, job_id: str) -> datetime:
        """The first minute mark that counts for a Job. Where no hub ticks yet, it may be late for it."""
        mark: datetime = self.value(
            "SELECT date_trunc('minute', schedule_from) + interval '1 minute' FROM jobs WHERE id = $1", job_id
        )
        return mark

    def run(self, job_id: str) -> int:
        """Queue a run of a Job as a person does."""
        run_id: int = self.do(requests.request_run(self.db, job_id, actor=ACTOR))
        return run_id

    def row(self, run_id: int) -> asyncpg.Record:
        """A row of job_logs."""
        return self.sql("SELECT * FROM job_logs WHERE id = $1", run_id)[0]

    def meta(self, run_id: int) -> dict[str, Any]:
        """The `meta` of a row of job_logs."""
        meta: dict[str, Any] = json.loads(self.row(run_id)["meta"])
        return meta

    def wait(self, run_id: int, *statuses: str, seconds: float = 30) -> asyncpg.Record:
        """The run's row as soon as its status is one of `statuses`, SUCCESS unless told otherwise."""
        wanted = statuses or ("SUCCESS",)
        row: asyncpg.Record = self.until(
            lambda: found if (found := self.row(run_id))["status"] in wanted else None, seconds
        )
        return row

    def until_ticked(self) -> None:
        """Wait until a tick that has not begun yet is done."""
        moment = self.value("SELECT clock_timestamp()")
        self.until(lambda: self.value("SELECT max(ticked_at) > $1 FROM hubs", moment), 90)

    def settle(self, seconds: float = 40) -> None:
        """Wait until no run is queued, running or still held."""
        self.until(
            lambda: (
                not self.value(
                    "SELECT count(*) FROM job_logs WHERE status IN ('QUEUED', 'RUNNING')"
                    " OR lease_expires_at > clock_timestamp()"
                )
            ),
            seconds,
        )

    def until(self, look: Callable[[], Any], seconds: float = 30) -> Any:
        """What `look` returns, as soon as that is something; another process gives no other signal."""
        end = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > end:
                logs = "\n".join(f"--- hub {hub.process.pid}\n{hub.log}" for hub in self.hubs)
                raise AssertionError(f"did not happen within {seconds} s\n{logs}")
            time.sleep(0.02)
        return found

    def told(self, event: str) -> list[dict[str, Any]]:
        """What the witness has seen of one kind."""
        return [line for line in self.lines() if line["event"] == event]

    def lines(self) -> list[dict[str, Any]]:
        """All that the witness has seen."""
        if not self.witness.exists():
            return []
        return [json.loads(line) for line in self.witness.read_text().splitlines()]

    def judge(self, due: Mapping[str, list[datetime]] | None = None) -> Verdict:
        """The verdict on all that has happened; prints its figures."""
        stored = self.sql("SELECT * FROM job_logs ORDER BY id")
        rows = [{**row, "meta": json.loads(row["meta"])} for row in stored]
        verdict = judge(rows, self.lines(), due or {}, frozenset(self.killed), frozenset(self.stopped))
        print(verdict)
        return verdict

    def postmaster(self, number: int) -> None:
        """Send a signal to the server: SIGQUIT is `pg_ctl stop -m immediate`."""
        pid_file = self.folder / "server" / "postgres" / "postmaster.pid"
        os.kill(int(pid_file.read_text().split()[0]), number)

    def crash_server(self) -> None:
        """`pg_ctl stop -m immediate`; returns when it is gone."""
        self.postmaster(signal.SIGQUIT)
        pid_file = self.folder / "server" / "postgres" / "postmaster.pid"
        self.until(lambda: not pid_file.exists() or not self._answers(), 20)

    def start_server(self) -> None:
        """Start it again; it recovers."""
        self.do(self.postgres.ensure_running())

    def _answers(self) -> bool:
        try:
            return bool(self.value("SELECT true"))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
