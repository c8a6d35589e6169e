"""Rows 1, 4, 5 and 8 for others: pgqueuer, APScheduler with its SQLAlchemy store, and the old design.

Need the extra `[bench]`. Each runs in a process of its own, as a hub does, which imports nothing of the hub, for its
memory is measured: `python -m tests.benchmarks.peers NAME DSN [NUMBER ...]` prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from math import inf
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.benchmarks.figures import Figure, Size
from tests.benchmarks.pace import paced

if TYPE_CHECKING:
    from tests.benchmarks.bench import Bench
    from tests.faults.stage import Hub

_SLOW_DUE = 1000  # of APScheduler, which works off each by itself and knows no places
_DUE = 100  # row 4
_PERIOD_S = 5  # so often they are due
_JOBS = 1000  # row 8
_SETTLE_S = 2
STARTS = 200  # row 5: ten seconds
A_SECOND = 20
_WARM = 2000


def peers(bench: Bench, size: Size) -> list[Figure]:
    """Runs queued at once, alternating with the hub's; neither keeps output, result or definition of a run."""
    _require("peers", "pgqueuer", "psycopg")
    bench.fill(1000, "NothingJob")
    bench.fill(STARTS, "StampedJob", prefix="stamped")
    hub = _warm_hub(bench, 64)
    figures = [
        *_quantiles("5", "the hub, enqueue to start", _hub_starts(bench)),
        *_quantiles("5", "pgqueuer, enqueue to start", _measure(bench, "pgqueuer_starts", 64)),
        *_quantiles("4", f"apscheduler, moment to start, {_DUE} due",
                    _measure(bench, "apscheduler_starts", size.times)),
        *_alternating(bench, size.times, "pgqueuer", "at 64 places", size.due, 64),
        *_alternating(bench, size.times, "apscheduler", f"of {_SLOW_DUE} due, one by one", _SLOW_DUE),
        Figure("8", "pgqueuer, idle: memory", _measure(bench, "pgqueuer_memory", 32)[0], "MiB", inf),
        Figure("8", f"apscheduler, idle with {_JOBS} jobs: memory", _measure(bench, "apscheduler_memory")[0], "MiB", inf),
    ]  # fmt: skip
    bench.end(hub)
    hub = _warm_hub(bench, 1000)  # the batch of 500 at which pgqueuer is fastest
    figures += _alternating(bench, size.times, "pgqueuer", "at 1000 places", size.due, 1000)
    bench.end(hub)
    return figures


def old(bench: Bench, size: Size) -> list[Figure]:
    """Row 1 against the old design, alternating, and what else it took."""
    _require("old", "celery", "redis", "psycopg")
    if shutil.which("redis-server") is None:
        raise SystemExit("row old needs redis-server: apt-get install redis-server")
    from tests.benchmarks import old_design

    bench.fill(size.due, "NothingJob", prefix="plain")
    hub = bench.start(64)
    _burst(bench, hub, size.due)
    pairs = [(_burst(bench, hub, size.due), old_design.drain(bench, size.due)) for _ in range(size.times)]
    bench.end(hub)
    rest = old_design.rest(bench, size.times)
    return [
        Figure("1", "the old design, runs/s", median(theirs for _, theirs in pairs), "/s", inf),
        Figure("1", "faster than the old design, by runs/s", median(ours / theirs for ours, theirs in pairs), "x",
               40, True),
        Figure("3", f"the old design, tick of {old_design.JOBS} Jobs, {old_design.DUE} due",
               median(rest.ticks) * 1000, "ms", inf),
        *_quantiles("5", "the old design, enqueue to start", rest.starts),
        Figure("8", "the old design, idle: memory of beat, worker and Redis", rest.memory, "MiB", inf),
    ]  # fmt: skip


def _require(row: str, *modules: str) -> None:
    if not all(find_spec(module) for module in modules):
        raise SystemExit(f"row {row} needs the extra [bench]: pip install -e '.[bench]'")


def _warm_hub(bench: Bench, places: int) -> Hub:
    hub = bench.start(places)
    bench.queue(_WARM)
    bench.settle(120)
    return hub


def _alternating(bench: Bench, times: int, name: str, how: str, due: int, *args: int) -> list[Figure]:
    from tests.benchmarks.long import drain

    pairs = [(drain(bench, due, "job-"), *_measure(bench, f"{name}_rate", due, *args)) for _ in range(times)]
    return [
        Figure("1", f"{name}, runs/s {how}", median(theirs for _, theirs in pairs), "/s", inf),
        Figure("1", f"the hub's, of those of {name}", median(ours / theirs for ours, theirs in pairs), "x", inf),
    ]  # fmt: skip


def _quantiles(row: str, what: str, values: list[float]) -> list[Figure]:
    from tests.benchmarks.bench import quantile

    return [Figure(row, f"{what}, p{share}", quantile(values, share / 100), "ms", inf) for share in (50, 99)]


def _burst(bench: Bench, hub: Hub, due: int) -> float:
    """Runs a second of the hub, from a minute mark to the last SUCCESS."""
    mark = bench.next_minute()
    bench.arm("plain", mark)
    burst = bench.burst(hub, mark, due)
    bench.arm("none", mark)
    return due / burst.seconds


def _hub_starts(bench: Bench) -> list[float]:
    """Milliseconds from each request of a run to the plugin's start; row 5 without the page."""
    sent: dict[int, float] = {}
    for number, at in enumerate(paced(time.time(), A_SECOND, STARTS), 1):
        sent[bench.run(f"stamped-{number}")] = at
    bench.settle(120)
    rows = bench.sql(
        "SELECT id, (result->>'at')::float8 AS at FROM job_logs WHERE id = ANY($1) AND status = 'SUCCESS'",
        list(sent),
    )
    each_once([row["id"] for row in rows], STARTS)
    return [(row["at"] - sent[row["id"]]) * 1000 for row in rows]


def _measure(bench: Bench, name: str, *args: int) -> list[float]:
    command = [sys.executable, "-m", "tests.benchmarks.peers", name, bench.postgres.dsn, *map(str, args)]
    root = Path(__file__).parents[2]
    figures: list[float] = json.loads(subprocess.check_output(command, cwd=root, timeout=600))
    return figures


def each_once(runs: Collection[object], due: int) -> None:
    """Raise unless so many ran, and none of them twice."""
    if len(runs) != due or len(set(runs)) != due:
        raise AssertionError(f"{due} were due, {len(set(runs))} ran, {len(runs)} times")


def memory_mib(pid: int, kind: str = "Rss") -> float:
    """The memory of a process; with "Pss" only its share of what it has in common with others."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition(f"\n{kind}:")[2].split()[0]) / 1024


_begun: asyncio.Queue[tuple[int, float]] = asyncio.Queue()  # what has run in a peer's process, and when


async def begin(number: int) -> None:
    """What the peers run."""
    _begun.put_nowait((number, time.time()))


async def _ran(due: int) -> dict[int, float]:
    """When each of so many began, once all have; none twice."""
    runs = [await _begun.get() for _ in range(due)]
    each_once([number for number, _ in runs], due)
    return dict(runs)


@asynccontextmanager
async def _pgqueuer(dsn: str, places: int) -> AsyncIterator[Any]:
    """Its queries, beside a worker with so many places."""
    import asyncpg
    from pgqueuer import AsyncpgPoolDriver, Job, Queries, QueueManager

    async with asyncpg.create_pool(dsn) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        manager = QueueManager(queries)

        async def nothing(job: Job) -> None:
            await begin(job.id)

        manager.entrypoint("nothing")(nothing)
        worker = asyncio.create_task(manager.run(batch_size=places // 2, max_concurrent_tasks=places))
        try:
            yield queries
        finally:
            manager.shutdown.set()
            await worker
            await queries.uninstall()


async def _pgqueuer_burst(queries: Any, due: int) -> list[int]:
    """The ids of so many that were queued at once, when all have run and their ends are stored."""
    ids: list[int] = await queries.enqueue(["nothing"] * due, [None] * due, [0] * due)
    await _ran(due)
    await asyncio.sleep(_SETTLE_S)  # it gathers ends for a tenth of a second
    return ids


async def _pgqueuer_rate(dsn: str, due: int, places: int) -> list[float]:
    """Runs a second by its own log, from the first pick (the hub's count from the last that was queued, which is
    a little before) to the end of the last, of a worker that is warm."""
    async with _pgqueuer(dsn, places) as queries:
        await _pgqueuer_burst(queries, _WARM)
        rows = await queries.driver.fetch(
            "SELECT job_id, status::text, extract(epoch FROM created)::float8 AS at FROM pgqueuer_log WHERE job_id = ANY($1)",
            await _pgqueuer_burst(queries, due),
        )
    picked, ended = ([row for row in rows if row["status"] == status] for status in ("picked", "successful"))
    each_once([row["job_id"] for row in ended], due)
    return [due / (max(row["at"] for row in ended) - min(row["at"] for row in picked))]


async def _pgqueuer_starts(dsn: str, places: int) -> list[float]:
    """Milliseconds from each enqueue to the job's start."""
    sent: dict[int, float] = {}
    async with _pgqueuer(dsn, places) as queries:
        await _pgqueuer_burst(queries, _WARM)
        begun = time.time()
        for number in range(STARTS):
            await asyncio.sleep(max(0.0, begun + number / A_SECOND - time.time()))
            at = time.time()
            sent[(await queries.enqueue("nothing", None))[0]] = at
        began = await _ran(STARTS)
    return [(began[job_id] - at) * 1000 for job_id, at in sent.items()]


async def _pgqueuer_memory(dsn: str, places: int) -> list[float]:
    async with _pgqueuer(dsn, places):
        await asyncio.sleep(_SETTLE_S)
        return [memory_mib(os.getpid())]


@contextmanager
def _apscheduler(dsn: str) -> Iterator[Any]:
    """A scheduler that is paused."""
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    store = SQLAlchemyJobStore(dsn.replace("postgresql://", "postgresql+psycopg://"), tablename="peer_jobs")
    never_missed = {"misfire_grace_time": None}
    scheduler = AsyncIOScheduler(jobstores={"default": store}, job_defaults=never_missed, timezone=UTC)
    scheduler.start(paused=True)
    try:
        yield scheduler
    finally:
        scheduler.remove_all_jobs()
        scheduler.shutdown(wait=False)


async def _apscheduler_rate(dsn: str, due: int) -> list[float]:
    """Runs a second, from when it may begin until the last has run; by then the store has let go of all."""
    with _apscheduler(dsn) as scheduler:
        for number in range(due):
            scheduler.add_job(begin, "date", run_date=datetime.now(UTC), args=[number])
        resumed = time.time()
        scheduler.resume()
        return [due / (max((await _ran(due)).values()) - resumed)]


async def _apscheduler_starts(dsn: str, times: int) -> list[float]:
    """Milliseconds from the moment at which all are due to each job's start, without the first such moment."""
    with _apscheduler(dsn) as scheduler:
        await asyncio.sleep(_PERIOD_S - time.time() % _PERIOD_S)
        for number in range(_DUE):
            scheduler.add_job(begin, "cron", second=f"*/{_PERIOD_S}", args=[number])
        scheduler.resume()
        marks = [await _ran(_DUE) for _ in range(times + 1)]
        return [at % _PERIOD_S * 1000 for began in marks[1:] for at in began.values()]


async def _apscheduler_memory(dsn: str) -> list[float]:
    with _apscheduler(dsn) as scheduler:
        for number in range(_JOBS):
            scheduler.add_job(begin, "cron", hour=3, args=[number])
        scheduler.resume()
        await asyncio.sleep(_SETTLE_S)
        return [memory_mib(os.getpid())]


_PEERS: dict[str, Callable[..., Coroutine[Any, Any, list[float]]]] = {
    "pgqueuer_rate": _pgqueuer_rate,
    "pgqueuer_starts": _pgqueuer_starts,
    "pgqueuer_memory": _pgqueuer_memory,
    "apscheduler_rate": _apscheduler_rate,
    "apscheduler_starts": _apscheduler_starts,
    "apscheduler_memory": _apscheduler_memory,
}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(_PEERS[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:])))))
