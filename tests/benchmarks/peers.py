"""Row 1 for others: how fast pgqueuer, and APScheduler with its SQLAlchemy store, work off what is due at once.

Need the extra `[bench]`. Each runs in a process of its own, as a hub does: `python -m tests.benchmarks.peers
pgqueuer|apscheduler DSN DUE PLACES` prints runs a second, from when all are due until all are done and stored.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from math import inf
from pathlib import Path
from statistics import median

import asyncpg

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, Size
from tests.benchmarks.long import drain

_PLACES = (64, 1000)  # row 1, and the batch of 500 at which pgqueuer is fastest
_SLOW_DUE = 1000  # of APScheduler, which works off each by itself and knows no places


def peers(bench: Bench, size: Size) -> list[Figure]:
    """Runs queued at once, alternating with the hub's; neither keeps output, result or definition of a run."""
    if find_spec("pgqueuer") is None or find_spec("psycopg") is None:
        print("row peers is left out: it needs the extra [bench]")
        return []
    bench.fill(1000, "NothingJob")
    figures = []
    for places in _PLACES:
        hub = bench.start(places)
        bench.arm("none", bench.next_minute())
        drain(bench, 2000)
        figures += _alternating(bench, size, "pgqueuer", size.due, places)
        if places == _PLACES[0]:
            figures += _alternating(bench, size, "apscheduler", min(size.due, _SLOW_DUE), places)
        bench.end(hub)
    return figures


def _alternating(bench: Bench, size: Size, name: str, due: int, places: int) -> list[Figure]:
    pairs = [(drain(bench, size.due), _rate(bench, name, due, places)) for _ in range(size.times)]
    at = f"at {places} places"
    return [
        Figure("1", f"{name}, runs/s {at}", median(theirs for _, theirs in pairs), "/s", inf),
        Figure(
            "1", f"the hub's, of those of {name}", median(ours / theirs for ours, theirs in pairs), "x", inf
        ),
    ]


def _rate(bench: Bench, name: str, due: int, places: int) -> float:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.peers",
        name,
        bench.postgres.dsn,
        str(due),
        str(places),
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return float(done.stdout)


async def _pgqueuer(dsn: str, due: int, places: int) -> float:
    from pgqueuer import AsyncpgPoolDriver, Job, Queries, QueueManager
    from pgqueuer.types import QueueExecutionMode

    async with asyncpg.create_pool(dsn) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        await queries.install()
        try:
            manager = QueueManager(queries)
            ran = 0

            async def nothing(job: Job) -> None:
                nonlocal ran
                ran += 1

            manager.entrypoint("nothing")(nothing)
            await queries.enqueue(["nothing"] * due, [None] * due, [0] * due)
            begun = time.perf_counter()
            await manager.run(
                mode=QueueExecutionMode.drain, batch_size=places // 2, max_concurrent_tasks=places
            )
            took = time.perf_counter() - begun
            if ran != due:
                raise AssertionError(f"{due} jobs were queued, {ran} ran")
            return due / took
        finally:
            await queries.uninstall()


async def nothing() -> None:
    """What APScheduler runs."""


async def _apscheduler(dsn: str, due: int, places: int) -> float:
    from apscheduler.events import EVENT_JOB_EXECUTED
    from apscheduler.executors.asyncio import AsyncIOExecutor
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    store = SQLAlchemyJobStore(dsn.replace("postgresql://", "postgresql+psycopg://"), tablename="peer_jobs")
    scheduler = AsyncIOScheduler(jobstores={"default": store}, executors={"default": AsyncIOExecutor()})
    ended, ran = asyncio.Event(), 0

    def count(event: object) -> None:
        nonlocal ran
        ran += 1
        if ran == due:
            ended.set()

    scheduler.add_listener(count, EVENT_JOB_EXECUTED)
    scheduler.start(paused=True)
    try:
        now = datetime.now(UTC)
        for number in range(due):
            scheduler.add_job(
                nothing, "date", run_date=now, id=str(number), timezone=UTC, misfire_grace_time=None
            )
        begun = time.perf_counter()
        scheduler.resume()
        await ended.wait()
        return due / (time.perf_counter() - begun)
    finally:
        scheduler.remove_all_jobs()
        scheduler.shutdown(wait=False)


if __name__ == "__main__":
    measure = {"pgqueuer": _pgqueuer, "apscheduler": _apscheduler}[sys.argv[1]]
    print(asyncio.run(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
