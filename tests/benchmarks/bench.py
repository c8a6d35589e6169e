"""What all rows stand on: a PostgreSQL of their own with its defaults, hubs as processes, and the floor."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import asyncpg
import httpx

from tests.faults.stage import Hub, Stage

JOBS = "tests.benchmarks.jobs"
_CHUNK = 20_000
_TICKS = os.sysconf("SC_CLK_TCK")


class Bench(Stage):
    """A stage whose hubs run as they are delivered: their leases, retention and admin, and fsync on."""

    def start(self, places: int = 64, **environ: str) -> Hub:
        """A hub with so many places."""
        delivered = {"CONNECTHUB_POOL__LEASE_S": "60", "CONNECTHUB_POOL__SHUTDOWN_GRACE_S": "30"}
        return self.hub(None, CONNECTHUB_POOL__SIZE=str(places), **delivered, **environ)

    def end(self, hub: Hub) -> None:
        """End a hub as systemd does."""
        hub.stop()
        self.hubs.remove(hub)

    def do(self, work: Any) -> Any:
        """The result of a coroutine, which may take its time here."""
        return self._thread.submit(self._loop.run_until_complete, work).result(3600)

    def fill(
        self,
        count: int,
        handler: str,
        params: dict[str, Any] | None = None,
        *,
        prefix: str = "job",
        secrets: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        """Insert `count` Jobs of each minute, none of them due before `arm`.

        `secrets` are those of the Job of a number.
        """
        for first in range(1, count + 1, _CHUNK):  # a statement may take a minute at most
            numbers = range(first, min(count, first + _CHUNK - 1) + 1)
            self.sql(
                "INSERT INTO jobs (id, cron_expr, timezone, handler_path, public_cfg, secret_cfg)"
                " SELECT $1 || '-' || n, '* * * * *', 'UTC', $2, $3::jsonb, secret"
                " FROM unnest($4::int[], $5::text[]) AS j(n, secret)",
                prefix,
                f"{JOBS}:{handler}",
                json.dumps(params or {}),
                list(numbers),
                [self.vault.encrypt(secrets(number)) if secrets else None for number in numbers],
            )
            self.sql(
                "UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp()) + interval '30 days'"
                " WHERE id = ANY(SELECT $1 || '-' || n FROM unnest($2::int[]) AS n)",
                prefix,
                list(numbers),
            )

    def arm(self, prefix: str, mark: datetime) -> None:
        """Let the Jobs of one prefix be due at `mark`, and no others soon; what is so already is left alone."""
        self.sql(
            "UPDATE jobs SET next_run_at = CASE WHEN id LIKE $1 || '-%' THEN $2::timestamptz"
            " ELSE $2::timestamptz + interval '30 days' END"
            " WHERE id LIKE $1 || '-%' OR coalesce(next_run_at, '-infinity') < $2::timestamptz + interval '1 day'",
            prefix,
            mark,
        )

    def vacuum(self, table: str) -> None:
        """As autovacuum leaves a table, however long that takes."""

        async def work() -> None:
            connection = await asyncpg.connect(self.postgres.dsn)
            await connection.execute(f"VACUUM ANALYZE {table}")
            await connection.close()

        self.do(work())

    def queue(self, count: int, prefix: str = "") -> None:
        """Queue runs of all Jobs, or of those of one prefix, in turn, as people would, and tell the hubs."""
        self.sql(
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
            " SELECT j.id, j.revision_id, 'api', 'QUEUED', j.id || ':run:' || gen_random_uuid()"
            " FROM (SELECT *, row_number() OVER () AS turn, count(*) OVER () AS jobs FROM jobs WHERE id LIKE $2 || '%') j,"
            " LATERAL generate_series(j.turn, $1::int, j.jobs)",
            count,
            prefix,
        )
        self.sql("SELECT pg_notify('connecthub', 'run')")

    def next_minute(self) -> datetime:
        """The coming minute mark by the database's clock, at least ten seconds ahead."""
        mark: datetime = self.value(
            "SELECT date_trunc('minute', clock_timestamp() + interval '10 seconds') + interval '1 minute'"
        )
        return mark

    def sleep_until(self, mark: datetime, seconds: float = 0.0) -> None:
        """Sleep until `seconds` after `mark` (the database is on this machine)."""
        time.sleep(max(0.0, mark.timestamp() + seconds - time.time()))

    def burst(self, hub: Hub, mark: datetime, count: int) -> Burst:
        """Wait for the runs of the fire time `mark`, and look at them once all have ended."""
        starts, last = self.starts(), self._last_run() + count
        self.sleep_until(mark, -0.5)
        cpu, server = cpu_seconds(hub.process.pid), self.server_seconds()
        self.sleep_until(mark, 0.3)
        self.until(lambda: self._last_run() >= last, 300)
        self.settle(120)
        used, server = cpu_seconds(hub.process.pid) - cpu, self.server_seconds() - server
        row = self.sql(
            "SELECT count(*) AS runs, count(*) FILTER (WHERE status = 'SUCCESS') AS good,"
            " max(queued_at) AS ticked, max(finished_at) AS ended FROM job_logs"
            " WHERE scheduled_for = $1 AND status <> 'SKIPPED'",
            mark,
        )[0]
        started = self.starts() - starts
        if not row["runs"] == row["good"] == started == count:
            raise AssertionError(
                f"{count} runs were due, {row['runs']} are there, {started} were called, {row['good']} succeeded"
            )
        return Burst(count, row["ended"] - mark, row["ticked"] - mark, used, server)

    def starts(self) -> int:
        """How often the hubs that run have called a plugin."""
        return int(sum(figure_of(hub, "connecthub_starts_total") for hub in self.hubs))

    def require_once(self) -> None:
        """Every run of hubs has succeeded, and the hubs, which have been there all the time, called each once."""
        row = self.sql(
            "SELECT count(*) FILTER (WHERE status = 'SUCCESS' AND worker_id IS NOT NULL) AS good,"
            " count(*) FILTER (WHERE status <> 'SUCCESS') AS bad FROM job_logs"
        )[0]
        if row["bad"] or row["good"] != self.starts():
            raise AssertionError(
                f"{row['good']} runs succeeded, {row['bad']} did not, {self.starts()} were called"
            )

    def server_seconds(self) -> float:
        """Processor time of the sessions of hubs in the server."""
        sessions = self.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'connecthub' AND pid <> pg_backend_pid()"
        )
        return sum(cpu_seconds(row["pid"]) for row in sessions)

    def _last_run(self) -> int:
        """The id of the newest run; looks at one entry of an index."""
        return int(self.value("SELECT coalesce(max(id), 0) FROM job_logs"))

    def settle(self, seconds: float = 40) -> None:
        """As a stage does, but whoever looks through the whole table meanwhile measures his own looks."""
        self.until(lambda: not self._is_queued(), seconds)
        super().settle(seconds)

    def _is_queued(self) -> bool:
        """Whether a run waits, by the last entry of the queue's index: before the first lie all that have left."""
        last = "SELECT id FROM job_logs WHERE status = 'QUEUED' ORDER BY priority, (trigger = 'schedule') DESC, id DESC"
        return bool(self.value(f"SELECT EXISTS ({last} LIMIT 1)"))

    def floor(self, count: int) -> float:
        """Seconds to insert `count` rows and to set them RUNNING and SUCCESS in batches of 500.

        It is what PostgreSQL itself needs for the three states that each run passes through.
        """
        return float(self.do(_floor(self.postgres.dsn, count, _BARE)))

    def floor_of_runs(self, count: int) -> float:
        """The same into job_logs, with its indexes and checks; no hub may run beside."""
        took = float(self.do(_floor(self.postgres.dsn, count, _RUNS)))
        self.sql(_RUNS.before)
        return took


class Burst:
    """One minute mark at which `count` Jobs were due."""

    def __init__(self, count: int, took: timedelta, ticked: timedelta, cpu: float, server: float) -> None:
        self.count = count
        self.seconds = took.total_seconds()
        self.tick_seconds = ticked.total_seconds()
        self.cpu_us = cpu / count * 1e6
        self.server_us = server / count * 1e6


class Writes(NamedTuple):
    """The writes of a run: `insert` takes ids of Jobs and returns those of rows, `update` takes ids and statuses."""

    before: str
    insert: str
    update: str


_BARE = Writes(
    "DROP TABLE IF EXISTS floor_runs;"
    "CREATE TABLE floor_runs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    " job_id text NOT NULL, status text NOT NULL, queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
    " finished_at timestamptz)",
    "INSERT INTO floor_runs (job_id, status) SELECT unnest($1::text[]), 'QUEUED' RETURNING id",
    "UPDATE floor_runs r SET status = e.status, finished_at = clock_timestamp()"
    " FROM unnest($1::bigint[], $2::text[]) AS e(id, status) WHERE r.id = e.id",
)
_RUNS = Writes(
    "TRUNCATE job_logs",
    "INSERT INTO job_logs (job_id, revision_id, trigger, status, scheduled_for, idempotency_key)"
    " SELECT id, 1, 'schedule', 'QUEUED', at, fire_key(id, at) FROM unnest($1::text[]) AS id,"
    " (SELECT clock_timestamp() AS at OFFSET 0) clock RETURNING id",
    "UPDATE job_logs r SET status = e.status, worker_id = gen_random_uuid(),"
    " lease_expires_at = CASE e.status WHEN 'RUNNING' THEN clock_timestamp() END,"
    " started_at = clock_timestamp(), finished_at = CASE e.status WHEN 'SUCCESS' THEN clock_timestamp() END"
    " FROM unnest($1::bigint[], $2::text[]) AS e(id, status) WHERE r.id = e.id",
)


async def _floor(dsn: str, count: int, writes: Writes) -> float:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(writes.before)
        begun = time.perf_counter()
        rows = await connection.fetch(writes.insert, [f"job-{number}" for number in range(count)])
        ids = [row["id"] for row in rows]
        for first in range(0, count, 500):
            batch = ids[first : first + 500]
            for status in ("RUNNING", "SUCCESS"):
                await connection.execute(writes.update, batch, [status] * len(batch))
        return time.perf_counter() - begun
    finally:
        await connection.close()


def figure_of(hub: Hub, name: str) -> float:
    """A figure of the hub's /metrics."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(f"{hub.url}/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    """The memory of a process."""
    return _status_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """The most memory that a process had since `reset_peak`."""
    return _status_mib(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """What `peak_mib` tells begins now (proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_mib(pid: int, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def middle(measure: Callable[[], float], times: int) -> float:
    """The median of so many measurements."""
    return median(measure() for _ in range(times))
