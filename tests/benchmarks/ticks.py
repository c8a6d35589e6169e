"""Rows 3 and 4: what a tick costs, and how precisely a plugin starts."""

from __future__ import annotations

from datetime import datetime
from math import inf
from statistics import median
from typing import NamedTuple

from tests.benchmarks.bench import Bench, figure_of, quantile
from tests.benchmarks.figures import Figure, Size
from tests.faults.stage import Hub

_DUE = 100
_PLACES = 128
_LAG = "connecthub_tick_lag_seconds"


class Tick(NamedTuple):
    """The tick of one minute mark, and how long after it the tick was done, by the hub's own measure."""

    mark: datetime
    seconds: float


def _tick(bench: Bench, hub: Hub, prefix: str) -> Tick:
    mark = bench.next_minute()
    bench.arm(prefix, mark)
    bench.sleep_until(mark, -0.5)
    starts = bench.starts()
    count, total = figure_of(hub, f"{_LAG}_count"), figure_of(hub, f"{_LAG}_sum")
    bench.sleep_until(mark, 1)  # nobody asks the hub anything while it ticks
    bench.until(lambda: figure_of(hub, f"{_LAG}_count") == count + 1, 90)
    seconds = figure_of(hub, f"{_LAG}_sum") - total
    bench.settle(120)
    due, started = _DUE if prefix == "due" else 0, bench.starts() - starts
    if started != due:
        raise AssertionError(f"{due} runs were due at {mark}, {started} were called")
    return Tick(mark, seconds)


def ticks(bench: Bench, size: Size) -> list[Figure]:
    """Row 3 with 1,000 and 100,000 Jobs (a million with --full), and row 4 on the largest table."""
    bench.fill(_DUE, "StampedJob", prefix="due")
    hub = bench.start(_PLACES)
    filled = _DUE
    first = [_tick(bench, hub, "due")]
    full: dict[int, list[Tick]] = {}
    for jobs in (1000, 100_000, *([1_000_000] if size.full else [])):
        bench.fill(jobs - filled, "NothingJob", prefix=f"rest{jobs}")
        filled = jobs
        bench.vacuum("jobs")
        _tick(bench, hub, "due")
        full[jobs] = [_tick(bench, hub, "due") for _ in range(size.times)]
    empty = median(_tick(bench, hub, "none").seconds for _ in range(size.times))
    took = {jobs: median(tick.seconds for tick in ticks) for jobs, ticks in full.items()}
    small, *_, large = took
    at = f"{_DUE} due, {_PLACES} places"
    delays = {"measured": _delays(bench, full[large]), "first": _delays(bench, first)}
    bench.require_once()
    bench.end(hub)
    return [
        Figure("3", f"tick with {_DUE} due: {large} Jobs against {small}", took[large] / took[small], "x", 1.5),
        Figure("3", f"the tick of {large} Jobs, from the minute mark", took[large] * 1000, "ms", inf),
        Figure("3", f"an empty tick of {large} Jobs, from the minute mark", empty * 1000, "ms", 2),
        Figure("4", f"minute mark to plugin start, {at}, p99", quantile(delays["measured"], 0.99), "ms", 25),
        Figure("4", "the same of the first tick after the hub's start, p99", quantile(delays["first"], 0.99), "ms", inf),
    ]  # fmt: skip


def _delays(bench: Bench, ticks: list[Tick]) -> list[float]:
    """Milliseconds from the minute marks to when each plugin says that it began."""
    rows = bench.sql(
        "SELECT ((result->>'at')::float8 - extract(epoch FROM scheduled_for)::float8) * 1000 AS ms FROM job_logs"
        " WHERE status = 'SUCCESS' AND scheduled_for = ANY($1)",
        [tick.mark for tick in ticks],
    )
    if len(rows) != _DUE * len(ticks):
        raise AssertionError(f"{_DUE} runs were due at each of {len(ticks)} marks, {len(rows)} succeeded")
    return [row["ms"] for row in rows]
