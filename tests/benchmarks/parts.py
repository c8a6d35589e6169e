"""Where the time of row 1 goes: the statements of the engine, each kind by itself, without a hub."""

from __future__ import annotations

import asyncio
import json
import time
from math import inf
from statistics import median
from uuid import uuid4

from connecthub.engine.tick import Ticker
from connecthub.metrics import Metrics
from connecthub.storage import runs
from connecthub.storage.database import ENGINE_SETTINGS, Database
from connecthub.storage.runs import Claim, Ending
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, Size

_KINDS = ("the tick", "claims of 32", "ends of 160")
_CLAIM, _ENDS = 32, 160  # as many go together where a hub has 64 places
_LEASE_S = 600
_META = json.dumps({"code": {"module": "tests.benchmarks.jobs", "sha256": "0" * 16, "commit": "0" * 40}})


def parts(bench: Bench, size: Size) -> list[Figure]:
    """The tick, the claims and the ends of row 1, one after the other: microseconds a run."""
    bench.fill(size.due, "NothingJob")
    took: list[list[tuple[float, float]]] = []
    for _ in range(size.times):
        bench.sql("TRUNCATE job_logs")
        bench.sql("UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp())")
        took.append(asyncio.run(_alone(bench, size.due)))
    figures = []
    for kind, measured in zip(_KINDS, zip(*took, strict=True), strict=True):
        wall, server = (median(values) / size.due * 1e6 for values in zip(*measured, strict=True))
        figures.append(Figure("1", f"{kind} alone, a run", wall, "us", inf))
        figures.append(Figure("1", f"{kind}: processor time of PostgreSQL, a run", server, "us", inf))
    return figures


async def _alone(bench: Bench, due: int) -> list[tuple[float, float]]:
    """Seconds, and those of processor time in the server, of each kind."""
    db = await Database.open(bench.postgres.dsn, settings=ENGINE_SETTINGS)
    worker, claims = uuid4(), list[Claim]()

    async def claim() -> None:
        while found := await runs.claim(db, worker, _LEASE_S, _CLAIM, 0, claims[-1] if claims else None):
            claims.extend(found)

    async def end() -> None:
        for first in range(0, len(claims), _ENDS):
            endings = [
                Ending(one.id, "SUCCESS", run_log="", meta=_META, started_at=one.claimed_at)
                for one in claims[first : first + _ENDS]
            ]
            await runs.store_endings(db, worker, endings)

    measured = []
    for work in (Ticker(db, Metrics(), lambda: None).tick_once, claim, end):
        begun, server = time.perf_counter(), bench.server_seconds()
        await work()
        measured.append((time.perf_counter() - begun, bench.server_seconds() - server))
    await db.close()
    ended = bench.value("SELECT count(*) FROM job_logs WHERE status = 'SUCCESS'")
    if ended != due:
        raise AssertionError(f"{due} runs were due, {ended} have ended")
    return measured
