"""Rows 6, 8, 10 and 11: what lasts."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from statistics import median

from connecthub.run_log import TRUNCATED
from tests.benchmarks.bench import Bench, cpu_seconds, figure_of, peak_mib, reset_peak, resident_mib
from tests.benchmarks.figures import Figure, Size
from tests.faults.stage import Hub

_ENDED = (
    "SELECT count(*) FROM job_logs WHERE status = 'SUCCESS' AND finished_at BETWEEN $1 AND clock_timestamp()"
)
_OLD = 300  # runs of each Job that retention finds each time
_LONGEST_S = 900  # autovacuum looks once a minute, and takes minutes where so much has changed
_WAITING = 6000  # at least, each time that somebody looks
_ALL_OLD = "SELECT count(*) FROM job_logs WHERE queued_at < clock_timestamp() - interval '90 days'"
_QUEUED = "SELECT count(*) FROM job_logs WHERE status = 'QUEUED'"


def back_to_back(bench: Bench, size: Size) -> list[Figure]:
    """Row 6: the queue is never empty, and retention has something to delete."""
    bench.fill(1000, "NothingJob")
    bench.sql("SELECT setval(pg_get_serial_sequence('job_logs', 'id'), $1)", (size.times + 1) * 1000 * _OLD)
    hub = bench.start(64)
    bench.queue(5000)
    bench.settle(120)
    memory, floors, rates, gone = resident_mib(hub.process.pid), [], [], []
    for number in range(size.times):
        floors.append(10_000 / bench.floor(10_000))
        _add_old_runs(bench, number * 1000 * _OLD)
        kept = bench.value(_ALL_OLD)
        _feed(bench, 5)  # until it is going
        since, begun = bench.value("SELECT clock_timestamp()"), time.time()
        _feed(bench, size.seconds, lambda: _goes_on_deleting(bench))
        rates.append(bench.value(_ENDED, since) / (time.time() - begun))
        gone.append(1 - bench.value(_ALL_OLD) / kept)
    if not min(gone):
        raise AssertionError(f"retention has deleted these shares of the old runs: {gone}")
    grown = resident_mib(hub.process.pid) - memory
    dead = _most_dead(bench)
    bench.settle(120)
    bench.require_once()
    bench.end(hub)
    return [
        Figure("6", f"runs/s over {size.seconds} s back to back", median(rates), "/s",
               min(10_000, 0.25 * median(floors)), True),
        Figure("6", "memory of the hub grew by", grown, "MiB", 10),
        Figure("6", "old runs that retention deleted meanwhile, of those that are to go", median(gone), "x", inf),
        Figure("6", "as they go on, between two autovacuums: dead rows for each row, at most", dead, "x", 1),
    ]  # fmt: skip


def _add_old_runs(bench: Bench, after: int) -> None:
    """With the ids after this one: retention goes by them, and ends where it finds only young runs."""
    bench.sql(
        "INSERT INTO job_logs (id, job_id, revision_id, trigger, status, idempotency_key, queued_at, started_at, finished_at)"
        " OVERRIDING SYSTEM VALUE"
        " SELECT $2 + row_number() OVER (), j.id, j.revision_id, 'api', 'SUCCESS', j.id || ':run:' || gen_random_uuid(), at, at, at FROM jobs j,"
        " LATERAL (SELECT clock_timestamp() - make_interval(days => 100, mins => n) AS at"
        "          FROM generate_series(1, $1::int) AS n) old",
        _OLD,
        after,
    )


def _goes_on_deleting(bench: Bench) -> bool:
    """Another pass of retention is due as soon as one has ended; nothing is over."""
    bench.sql("UPDATE retention SET touched_at = touched_at - interval '2 hours' WHERE ended_at = touched_at")
    return False


def _feed(bench: Bench, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
    """Never let the queue run empty, for so long or until it `is_over`."""
    begun = time.time()
    bench.queue(_WAITING)
    while time.time() < begun + seconds and not is_over():
        waiting = bench.value(_QUEUED)
        if not waiting:
            raise AssertionError("the queue ran empty")
        if waiting < _WAITING:
            bench.queue(_WAITING)
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
        return len(shares) == 3

    _feed(bench, _LONGEST_S, look)
    return max(list(shares.values())[1]) if len(shares) == 3 else inf


def idle(bench: Bench, size: Size) -> list[Figure]:
    """Row 8: a thousand Jobs, none of them due."""
    bench.fill(1000, "NothingJob")
    memory, used = [], []
    for _ in range(size.times):
        hub = bench.start(32)
        time.sleep(10)
        cpu = cpu_seconds(hub.process.pid)
        time.sleep(size.seconds)
        used.append((cpu_seconds(hub.process.pid) - cpu) / size.seconds * 100)
        memory.append(resident_mib(hub.process.pid))
        last = _worked(bench, hub)
        bench.end(hub)
    return [
        Figure("8", "idle with 1,000 Jobs: memory of the hub", median(memory), "MiB", 80),
        Figure("8", "of one core", median(used), "%", 0.5),
        Figure("8", "memory once it has run each Job and shown its pages", last, "MiB", inf),
    ]


def _worked(bench: Bench, hub: Hub) -> float:
    bench.queue(1000)
    bench.settle(120)
    person = hub.person()
    for page in ("/admin/", "/admin/jobs/list", "/admin/joblogs/list"):
        assert person.get(page).status_code == 200
    return resident_mib(hub.process.pid)


def logs(bench: Bench, size: Size) -> list[Figure]:
    """Row 10: against the same lines into a plain file handler."""
    lines = 100_000
    bench.fill(1, "LogJob", {"lines": lines}, prefix="one")
    bench.fill(100, "LogJob", {"lines": lines // 100}, prefix="many")
    hub = bench.start(100)
    before = resident_mib(hub.process.pid)
    reset_peak(hub.process.pid)
    ratios: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(size.times):
        for kind, runs in (("one", 1), ("many", 100)):
            plain = _plain_lines(lines)
            since = bench.value("SELECT clock_timestamp()")
            bench.queue(runs, f"{kind}-")
            bench.settle(300)
            rows = bench.sql(
                "SELECT run_log, extract(epoch FROM max(finished_at) OVER () - min(started_at) OVER ())::float8 AS seconds"
                " FROM job_logs WHERE queued_at > $1 AND status = 'SUCCESS'",
                since,
            )
            whole = sum(_is_whole(row["run_log"], lines // runs) for row in rows)
            if whole != runs:
                raise AssertionError(
                    f"of {runs} runs {len(rows)} succeeded, and {whole} have the log that they wrote"
                )
            ratios[kind].append(rows[0]["seconds"] / plain)
    grown = peak_mib(hub.process.pid) - before
    bench.end(hub)
    return [
        Figure("10", f"a run that logs {lines} lines, of a plain file", median(ratios["one"]), "x", 2),
        Figure("10", "a hundred runs that log as much together", median(ratios["many"]), "x", 2),
        Figure("10", "memory of the hub at its peak, over what it was before", grown, "MiB", 100 * 0.2 + 20),
    ]


def _is_whole(log: str, lines: int) -> bool:
    """Whether all lines are there, in order; or those up to a mark, which may cut one, and those after it."""
    wanted = [f"line {number} of a run that has much to say" for number in range(lines)]
    begin, mark, end = log.partition(f"{TRUNCATED}\n")
    before, after = ([line.partition(": ")[2] for line in part.splitlines()] for part in (begin, end))
    if not mark:
        return before == wanted
    before.pop()
    return bool(before and after) and before == wanted[: len(before)] and after == wanted[-len(after) :]


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
        if not figure_of(hub, "connecthub_starts_total"):
            raise AssertionError(f"a hub of {len(running)} has called nothing")
        bench.end(hub)
    ratios = {
        count: median(many / one for many, one in zip(rates[count], rates[1], strict=True))
        for count in (2, 4)
    }
    return [
        Figure("11", f"{count} hubs on one database, of one hub's runs/s", ratio, "x", 1, True)
        for count, ratio in ratios.items()
    ]


def drain(bench: Bench, runs: int, prefix: str = "") -> float:
    """Runs a second, from when they are queued to the last end; each was called once, by one hub."""
    since, starts = bench.value("SELECT clock_timestamp()"), bench.starts()
    bench.queue(runs, prefix)
    bench.settle(300)
    row = bench.sql(
        "SELECT count(*) AS good, extract(epoch FROM max(finished_at) - max(queued_at))::float8 AS seconds"
        " FROM job_logs WHERE queued_at >= $1 AND status = 'SUCCESS'",
        since,
    )[0]
    started = bench.starts() - starts
    if not row["good"] == started == runs:
        raise AssertionError(f"{runs} runs were queued, {started} were called, {row['good']} succeeded")
    return float(runs / row["seconds"])
