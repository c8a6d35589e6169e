"""Rows 6, 8, 10, 11 and 12: what lasts."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from statistics import median

import asyncpg

from tests.benchmarks.bench import Bench, cpu_seconds, quantile, resident_mib
from tests.benchmarks.figures import Figure, Size
from tests.faults.stage import Hub

_ENDED = "SELECT count(*) FROM job_logs WHERE status = 'SUCCESS' AND finished_at > $1"
_LONGEST_S = 900  # autovacuum looks once a minute, and takes minutes where so much has changed
_QUEUED = "SELECT count(*) FROM job_logs WHERE status = 'QUEUED'"


def back_to_back(bench: Bench, size: Size) -> list[Figure]:
    """Row 6: the queue is never empty."""
    bench.fill(1000, "NothingJob")
    hub = bench.start(64)
    bench.arm("none", bench.next_minute())
    bench.queue(5000)
    bench.settle(120)
    memory, floor = resident_mib(hub.process.pid), 10_000 / bench.floor(10_000)
    since = bench.value("SELECT clock_timestamp()")
    begun = time.time()
    _feed(bench, lambda: time.time() >= begun + size.seconds)
    rate = bench.value(_ENDED, since) / (time.time() - begun)
    grown = resident_mib(hub.process.pid) - memory
    dead = _most_dead(bench)
    bench.settle(120)
    bench.end(hub)
    return [
        Figure(
            "6", f"runs/s over {size.seconds} s back to back", rate, "/s", min(10_000, 0.25 * floor), True
        ),
        Figure("6", "memory of the hub grew by", grown, "MiB", 10),
        Figure("6", "as they go on, between two autovacuums: dead rows for each row, at most", dead, "x", 1),
    ]  # fmt: skip


def _feed(bench: Bench, is_over: Callable[[], bool]) -> None:
    """Never let the queue run empty."""
    while not is_over():
        if bench.value(_QUEUED) < 4000:
            bench.queue(4000)
        time.sleep(0.1)


def _most_dead(bench: Bench) -> float:
    """The most dead rows for each row while runs go on, from one autovacuum to the next; infinite if none comes."""
    shares: dict[int, list[float]] = {}

    def look() -> bool:
        row = bench.sql(
            "SELECT n_dead_tup / greatest(n_live_tup, 1)::float8 AS share, autovacuum_count AS past"
            " FROM pg_stat_user_tables WHERE relname = 'job_logs'"
        )[0]
        shares.setdefault(row["past"], []).append(row["share"])
        return len(shares) == 3 or time.time() >= begun + _LONGEST_S

    begun = time.time()
    _feed(bench, look)
    return max(list(shares.values())[1]) if len(shares) == 3 else inf


def idle(bench: Bench, size: Size) -> list[Figure]:
    """Row 8: a thousand Jobs, none of them due."""
    bench.fill(1000, "NothingJob")
    hub = bench.start(32)
    bench.arm("none", bench.next_minute())
    time.sleep(10)
    cpu = cpu_seconds(hub.process.pid)
    time.sleep(size.seconds)
    used = (cpu_seconds(hub.process.pid) - cpu) / size.seconds * 100
    memory = resident_mib(hub.process.pid)
    bench.end(hub)
    return [
        Figure("8", "idle with 1,000 Jobs: memory of the hub", memory, "MiB", 80),
        Figure("8", "of one core", used, "%", 0.5),
    ]


def logs(bench: Bench, size: Size) -> list[Figure]:
    """Row 10: against the same lines into a plain file handler."""
    lines = 100_000
    bench.fill(1, "LogJob", {"lines": lines}, prefix="one")
    bench.fill(100, "LogJob", {"lines": lines // 100}, prefix="many")
    hub = bench.start(100)
    bench.arm("none", bench.next_minute())
    before = resident_mib(hub.process.pid)
    ratios: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(size.times):
        for kind, seconds in ratios.items():
            plain = _plain_lines(lines)
            since = bench.value("SELECT clock_timestamp()")
            bench.sql(
                "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
                " SELECT id, revision_id, 'api', 'QUEUED', id || gen_random_uuid() FROM jobs WHERE id LIKE $1 || '-%'",
                kind,
            )
            bench.sql("SELECT pg_notify('connecthub', 'run')")
            bench.settle(300)
            took = bench.value(
                "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM job_logs"
                " WHERE queued_at > $1",
                since,
            )
            seconds.append(took / plain)
    grown = resident_mib(hub.process.pid) - before
    bench.end(hub)
    return [
        Figure("10", f"a run that logs {lines} lines, of a plain file", quantile(ratios["one"], 0.5), "x", 2),
        Figure("10", "a hundred runs that log as much together", quantile(ratios["many"], 0.5), "x", 2),
        Figure("10", "memory of the hub grew by", grown, "MiB", 100 * 0.2 + 20),
    ]


def _plain_lines(lines: int) -> float:
    log = logging.getLogger("tests.benchmarks.plain")
    log.propagate = False
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        handler = logging.FileHandler(Path(folder) / "plain.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
        begun = time.perf_counter()
        for number in range(lines):
            log.info("line %d of a run that has much to say", number)
        took = time.perf_counter() - begun
        log.removeHandler(handler)
        handler.close()
    return took


def hubs(bench: Bench, size: Size) -> list[Figure]:
    """Row 11: one, two and four hubs drain the same queue, alternating."""
    bench.fill(1000, "NothingJob")
    bench.arm("none", bench.next_minute())
    running: list[Hub] = []
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for _ in range(size.times):
        for count, of_them in rates.items():
            while len(running) > count:
                bench.end(running.pop())
            while len(running) < count:
                running.append(bench.start(64))
            drain(bench, 2000)
            of_them.append(drain(bench, size.due))
    for hub in running:
        bench.end(hub)
    ratios = {
        count: median(many / one for many, one in zip(rates[count], rates[1], strict=True))
        for count in (2, 4)
    }
    return [
        Figure("11", f"{count} hubs on one database, of one hub's runs/s", ratio, "x", 1, True)
        for count, ratio in ratios.items()
    ]


def drain(bench: Bench, runs: int) -> float:
    """Runs a second, from when they are queued; each must have ended once, by one hub."""
    since = bench.value("SELECT clock_timestamp()")
    bench.queue(runs)
    bench.settle(300)
    row = bench.sql(
        "SELECT count(*) AS good, extract(epoch FROM max(finished_at) - max(queued_at))::float8 AS seconds"
        " FROM job_logs WHERE queued_at >= $1 AND status = 'SUCCESS'",
        since,
    )[0]
    if row["good"] != runs:
        raise AssertionError(f"{runs} runs were queued, {row['good']} succeeded")
    return float(runs / row["seconds"])


def sick(bench: Bench, size: Size) -> list[Figure]:
    """Row 12: another session holds a transaction open while 1,000 runs/s go through (10 minutes with --full)."""
    seconds = 600 if size.full else size.seconds
    bench.fill(1000, "NothingJob")
    hub = bench.start(64)
    bench.arm("none", bench.next_minute())
    bench.queue(2000)
    bench.settle(120)
    other = bench.do(asyncpg.connect(bench.postgres.dsn))
    bench.do(other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ"))
    bench.do(other.fetchval("SELECT count(*) FROM job_logs"))
    lookups: list[float] = []
    begun = time.time()
    since = bench.value("SELECT clock_timestamp()")
    for number in range(seconds * 20):
        time.sleep(max(0.0, begun + number / 20 - time.time()))
        bench.queue(50)
        at = time.perf_counter()
        bench.sql("SELECT * FROM users WHERE username = 'admin'")
        lookups.append(time.perf_counter() - at)
    bench.settle(120)
    slices = bench.sql(
        "SELECT width_bucket(extract(epoch FROM queued_at - $1)::float8, 0, $2::float8, 10) AS part, count(*) AS runs,"
        " percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - queued_at)::float8) AS delay"
        " FROM job_logs WHERE queued_at >= $1 AND status = 'SUCCESS' GROUP BY 1 ORDER BY 1",
        since,
        float(seconds),
    )
    bench.do(other.execute("ROLLBACK"))
    bench.do(other.close())
    bench.end(hub)
    first, last, tenth = slices[1], slices[9], len(lookups) // 10
    early, late = quantile(lookups[tenth : 2 * tenth], 0.5), quantile(lookups[-tenth:], 0.5)
    return [
        Figure("12", f"{seconds} s beside an open transaction: runs/s at the end", last["runs"] / first["runs"], "x",
               0.95, True),
        Figure("12", "queued to plugin start, end against beginning, p50", last["delay"] / first["delay"], "x", 1.5),
        Figure("12", "an unrelated indexed query, p50", late / early, "x", 1.1),
    ]  # fmt: skip
