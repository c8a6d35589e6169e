"""Row 12: another session holds a transaction open, so that nothing dead can be cleared away."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import asyncpg

from tests.benchmarks.bench import Bench, figure_of, quantile
from tests.benchmarks.figures import Figure, Size
from tests.benchmarks.pace import paced
from tests.faults.stage import Hub

_PARTS = 10  # of the time: the last is compared with the first
_ROWS = 100_000
_OTHERS = (
    "CREATE TABLE others (id bigint PRIMARY KEY, name text);"
    f"INSERT INTO others SELECT n, 'row ' || n FROM generate_series(1, {_ROWS}) AS n; ANALYZE others"
)


class Part(NamedTuple):
    """What one part of the time was like: seconds a claim, and each look at an unrelated table, in seconds."""

    claim: float
    lookups: list[float]


def sick(bench: Bench, size: Size) -> list[Figure]:
    """1,000 runs/s go through meanwhile, for 10 minutes with --full."""
    seconds = 600 if size.full else size.seconds
    bench.fill(1000, "NothingJob")
    hub = bench.start(64)
    bench.queue(2000)
    bench.settle(120)
    other, third = (bench.do(asyncpg.connect(bench.postgres.dsn)) for _ in range(2))
    bench.do(third.execute(_OTHERS))
    look = bench.do(third.prepare("SELECT name FROM others WHERE id = $1"))
    bench.do(other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ"))
    bench.do(other.fetchval("SELECT count(*) FROM job_logs"))
    since, begun = bench.value("SELECT clock_timestamp()"), time.time()
    parts = [_part(bench, hub, look, begun + n * seconds / _PARTS, seconds // _PARTS) for n in range(_PARTS)]
    bench.settle(120)
    bench.require_once()
    ended = bench.sql(
        "SELECT width_bucket(extract(epoch FROM finished_at - $1)::float8, 0, $2::float8, $3) AS part, count(*) AS runs"
        " FROM job_logs WHERE queued_at >= $1 AND status = 'SUCCESS' GROUP BY 1 ORDER BY 1",
        since,
        float(seconds),
        _PARTS,
    )
    for connection in (other, third):
        bench.do(connection.close())
    bench.end(hub)
    runs = [row["runs"] for row in ended]
    if sum(runs) != seconds * 1000:
        raise AssertionError(f"{seconds * 1000} runs were queued, {sum(runs)} succeeded")
    first, last = parts[0], parts[-1]
    middles = [quantile(part.lookups, 0.5) for part in (first, last)]
    return [
        Figure("12", f"{seconds} s beside an open transaction: runs/s, end against beginning",
               runs[_PARTS - 1] / runs[0], "x", 0.95, True),
        Figure("12", "a claim, end against beginning", last.claim / first.claim, "x", 1.5),
        Figure("12", "an unrelated indexed query, p50", middles[1] / middles[0], "x", 1.1),
    ]  # fmt: skip


def _part(bench: Bench, hub: Hub, look: Any, begun: float, seconds: int) -> Part:
    lookups: list[float] = []
    count, total = _claims(hub)
    for number, _ in enumerate(paced(begun, 20, seconds * 20)):
        bench.queue(50)
        lookups.append(bench.do(_timed(look, 1 + number * 97 % _ROWS)))
    counted, summed = _claims(hub)
    return Part((summed - total) / (counted - count), lookups)


async def _timed(look: Any, number: int) -> float:
    begun = time.perf_counter()
    assert await look.fetchval(number) == f"row {number}"
    return time.perf_counter() - begun


def _claims(hub: Hub) -> tuple[float, float]:
    """How many claims there were, and how many seconds they took."""
    return figure_of(hub, "connecthub_claim_seconds_count"), figure_of(hub, "connecthub_claim_seconds_sum")
