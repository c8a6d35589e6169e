"""Rows 1, 2 and 13: all Jobs due on one minute mark, each against the floor measured just before it."""

from __future__ import annotations

from math import inf
from statistics import median

from tests.benchmarks.bench import Bench, Burst
from tests.benchmarks.figures import Figure, Size
from tests.faults.stage import Hub

_WAIT_S = 0.05


def _sample(bench: Bench, hub: Hub, prefix: str, due: int) -> tuple[Burst, float]:
    floor = bench.floor(due)
    mark = bench.next_minute()
    bench.arm(prefix, mark)
    burst = bench.burst(hub, mark, due)
    bench.arm("none", mark)
    return burst, floor


def nothing(bench: Bench, size: Size) -> list[Figure]:
    """Rows 1, 13 and the first half of 2: plugins that do nothing, on the loop, in threads, with secrets."""
    bench.fill(size.due, "NothingJob", prefix="plain")
    bench.fill(size.due, "NothingThreadJob", prefix="thread")
    bench.fill(
        size.due, "SecretJob", prefix="secret", secrets=lambda n: {"user": "hub", "token": f"s3cret-{n:09}"}
    )
    runs_floor = median(bench.floor_of_runs(size.due) / bench.floor(size.due) for _ in range(size.times))
    hub = bench.start(64)
    kinds: dict[str, list[tuple[Burst, float]]] = {"plain": [], "thread": [], "secret": []}
    for _ in range(size.times):
        for kind, samples in kinds.items():
            samples.append(_sample(bench, hub, kind, size.due))
    bench.end(hub)
    _require_masked(bench, size.due * size.times)
    ratio = {
        kind: median(burst.seconds / floor for burst, floor in samples) for kind, samples in kinds.items()
    }
    seconds = {kind: median(burst.seconds for burst, _ in samples) for kind, samples in kinds.items()}
    tick = median(burst.tick_seconds for burst, _ in kinds["plain"])
    cpu = {kind: median(burst.cpu_us for burst, _ in samples) for kind, samples in kinds.items()}
    return [
        Figure("1", f"{size.due} due: tick to last SUCCESS, in floors", ratio["plain"], "x", 4),
        Figure("1", "the same in seconds (4 floors of this run)", seconds["plain"], "s",
               4 * median(floor for _, floor in kinds["plain"])),
        Figure("1", "a floor with the table of runs itself, its indexes and checks, in floors", runs_floor, "x", inf),
        Figure("1", "of which until the tick is stored", tick, "s", inf),
        Figure("1", "processor time of the hub, a run", cpu["plain"], "us", 100),
        Figure("1", "processor time of its sessions in PostgreSQL, a run",
               median(burst.server_us for burst, _ in kinds["plain"]), "us", inf),
        Figure("2", f"{size.due} due, sync plugins in threads, in floors", ratio["thread"], "x", 6),
        Figure("13", "row 1 with secrets, logged and returned", seconds["secret"] / seconds["plain"], "x", 1.5),
        Figure("13", "processor time of the hub, a run that decrypts, logs, masks and returns", cpu["secret"], "us", 100),
    ]  # fmt: skip


def _require_masked(bench: Bench, runs: int) -> None:
    """Each of so many runs logged its secret, returned it, and shows neither."""
    row = bench.sql(
        "SELECT count(*) FILTER (WHERE run_log LIKE '%signed in with ***%' AND result = '{\"token\": \"***\"}') AS masked,"
        " count(*) FILTER (WHERE l::text LIKE '%s3cret-%') AS clear FROM job_logs l WHERE job_id LIKE 'secret-%'"
    )[0]
    if (row["masked"], row["clear"]) != (runs, 0):
        raise AssertionError(f"of {runs} runs {row['masked']} are masked, {row['clear']} show a secret")


def waits(bench: Bench, size: Size) -> list[Figure]:
    """The second half of row 2: plugins that wait 50 ms, with 256 places."""
    bench.fill(size.due, "WaitJob", {"seconds": _WAIT_S}, prefix="loop")
    bench.fill(size.due, "WaitThreadJob", {"seconds": _WAIT_S}, prefix="thread")
    hub = bench.start(256)
    took: dict[str, list[float]] = {"loop": [], "thread": []}
    for _ in range(size.times):
        for kind, seconds in took.items():
            seconds.append(_sample(bench, hub, kind, size.due)[0].seconds)
    bench.end(hub)
    ideal = size.due * _WAIT_S / 256
    return [
        Figure("2", f"{size.due} due, 50 ms each on the loop, of the ideal {ideal:.2f} s",
               median(took["loop"]) / ideal, "x", 1.3),
        Figure("2", "the same in threads", median(took["thread"]) / ideal, "x", 1.3),
    ]  # fmt: skip
