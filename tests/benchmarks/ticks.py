"""Rows 3 and 4: what a tick costs, and how precisely a plugin starts."""

from __future__ import annotations

import re
from datetime import datetime
from math import inf
from statistics import median

import httpx

from tests.benchmarks.bench import Bench, quantile
from tests.benchmarks.figures import Figure, Size
from tests.faults.stage import NEVER, Hub

_DUE = 100


def figure_of(hub: Hub, name: str) -> float:
    """A figure of the hub's /metrics."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(f"{hub.url}/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def _tick_seconds(bench: Bench, hub: Hub, prefix: str) -> float:
    """From the minute mark to the end of its tick, by the hub's own measure."""
    mark = bench.next_minute()
    bench.arm(prefix, mark)
    count, total = (figure_of(hub, f"connecthub_tick_lag_seconds_{part}") for part in ("count", "sum"))
    bench.sleep_until(mark)
    bench.until(lambda: figure_of(hub, "connecthub_tick_lag_seconds_count") > count, 90)
    return figure_of(hub, "connecthub_tick_lag_seconds_sum") - total


def ticks(bench: Bench, size: Size) -> list[Figure]:
    """Row 3 with 1,000 and 100,000 Jobs (a million with --full), and row 4 on the largest table."""
    bench.fill(_DUE, "NothingJob", prefix="due")
    hub = bench.start(128)
    bench.arm("none", bench.next_minute())
    filled, took, since = _DUE, {}, None
    for jobs in (1000, 100_000, *([1_000_000] if size.full else [])):
        bench.fill(jobs - filled, "NothingJob", prefix=f"rest{jobs}", cron=NEVER)
        filled = jobs
        bench.vacuum("jobs")
        _tick_seconds(bench, hub, "due")
        since = bench.value("SELECT clock_timestamp()")
        took[jobs] = median(_tick_seconds(bench, hub, "due") for _ in range(size.times))
    empty = median(_tick_seconds(bench, hub, "none") for _ in range(size.times))
    small, *_, large = took
    measured, first = _delays(bench, since), _delays(bench, None)[:_DUE]
    bench.end(hub)
    return [
        Figure("3", f"tick with {_DUE} due: {large} Jobs against {small}", took[large] / took[small], "x", 1.5),
        Figure("3", f"an empty tick of {large} Jobs, from the minute mark", empty * 1000, "ms", 2),
        Figure("4", f"minute mark to plugin start, {_DUE} due, p99", quantile(measured, 0.99), "ms", 25),
        Figure("4", "the same of the first tick after the hub's start, p99", quantile(first, 0.99), "ms", inf),
    ]  # fmt: skip


def _delays(bench: Bench, since: datetime | None) -> list[float]:
    """Milliseconds from the minute mark to each plugin's start, in order, for what was queued after `since`."""
    rows = bench.sql(
        "SELECT extract(epoch FROM started_at - scheduled_for)::float8 * 1000 AS ms FROM job_logs"
        " WHERE status = 'SUCCESS' AND queued_at > coalesce($1::timestamptz, '-infinity') ORDER BY id",
        since,
    )
    return [row["ms"] for row in rows]
