"""Rows 5, 7 and 9: what people notice."""

from __future__ import annotations

import re
import threading
import time

from tests.benchmarks.bench import Bench, quantile
from tests.benchmarks.figures import Figure, Size
from tests.benchmarks.ticks import figure_of
from tests.faults.stage import Hub
from tests.program import Person

_CHUNK = 20_000
_LATE = "0.02"  # a bucket of the metric
_PAGES = ("/admin/", "/admin/joblogs/list")


def _run_now(bench: Bench, person: Person, job_id: str, seconds: float) -> list[float]:
    """Milliseconds from each POST to the plugin's start, 20 a second."""
    sent: dict[int, float] = {}
    begun = time.time()
    for number in range(int(seconds * 20)):
        time.sleep(max(0.0, begun + number / 20 - time.time()))
        at = time.time()
        answer = person.post(f"/admin/jobs/{job_id}/run")
        found = re.search(r"/details/(\d+)", answer.headers["location"])
        assert found is not None
        sent[int(found[1])] = at
    bench.settle(120)
    rows = bench.sql(
        "SELECT id, extract(epoch FROM started_at)::float8 AS at FROM job_logs WHERE id = ANY($1)", list(sent)
    )
    return [(row["at"] - sent[row["id"]]) * 1000 for row in rows]


def run_now(bench: Bench, size: Size) -> list[Figure]:
    """Row 5: alone, and while a burst goes on."""
    bench.fill(size.due, "NothingJob", prefix="burst")
    bench.fill(1, "NothingJob", prefix="now")
    hub = bench.start(64)
    person = hub.person()
    bench.arm("none", bench.next_minute())
    _run_now(bench, person, "now-1", 1)
    alone = _run_now(bench, person, "now-1", 10)
    under: list[float] = []
    for _ in range(size.times):
        mark = bench.next_minute()
        bench.arm("burst", mark)
        bench.sleep_until(mark)
        under += _run_now(bench, person, "now-1", 1.5)
    bench.end(hub)
    return [
        Figure("5", "run now, POST to plugin start, p50", quantile(alone, 0.5), "ms", 5),
        Figure("5", "the same, p99", quantile(alone, 0.99), "ms", 15),
        Figure("5", f"the same while {size.due} due Jobs run, p99", quantile(under, 0.99), "ms", 250),
    ]


def _first_byte(person: Person, path: str) -> float:
    begun = time.perf_counter()
    with person.stream("GET", path) as answer:
        assert answer.status_code == 200, path
        next(answer.iter_raw())
        took = time.perf_counter() - begun
        answer.read() if not answer.is_stream_consumed else None
    return took * 1000


def _share_above(hub: Hub, bound: str, before: tuple[float, float]) -> float:
    """Which share of the looks at the event loop came later than `bound` seconds, in per cent."""
    count, within = _lag(hub, bound)
    return 100 * (1 - (within - before[1]) / max(count - before[0], 1))


def _lag(hub: Hub, bound: str) -> tuple[float, float]:
    name = "connecthub_loop_lag_seconds"
    return figure_of(hub, f"{name}_count"), figure_of(hub, f'{name}_bucket{{le="{bound}"}}')


def admin_under_load(bench: Bench, size: Size) -> list[Figure]:
    """Row 7: pages at 10 requests a second while runs drain all the time."""
    bench.fill(1000, "NothingJob")
    hub = bench.start(64)
    person = hub.person()
    bench.arm("none", bench.next_minute())
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            bench.queue(size.due)
            bench.until(
                lambda: not bench.value("SELECT EXISTS (SELECT FROM job_logs WHERE status = 'QUEUED')")
            )

    feeder = threading.Thread(target=feed)
    before = _lag(hub, _LATE)
    feeder.start()
    begun, took = time.time(), []
    for number in range(10 * min(size.seconds, 30)):
        time.sleep(max(0.0, begun + number / 10 - time.time()))
        took.append(_first_byte(person, _PAGES[number % 2]))
    late = _share_above(hub, _LATE, before)
    stop.set()
    feeder.join()
    bench.end(hub)
    return [
        Figure(
            "7", "overview and runs page while runs drain, first byte p99", quantile(took, 0.99), "ms", 100
        ),
        Figure("7", "looks at the event loop that came over 20 ms late", late, "%", 1),
    ]


def pages(bench: Bench, size: Size) -> list[Figure]:
    """Row 9: the pages over a million runs (ten with --full)."""
    rows = 10_000_000 if size.full else 1_000_000
    bench.fill(1000, "NothingJob")
    bench.arm("none", bench.next_minute())
    bench.sql("ALTER TABLE job_logs SET (autovacuum_enabled = off)")
    for first in range(1, rows, _CHUNK):
        bench.sql(
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, reason, scheduled_for, idempotency_key, message,"
            " queued_at, started_at, finished_at)"
            " SELECT j.id, j.revision_id, 'schedule', CASE WHEN n % 50 = 0 THEN 'FAILURE' ELSE 'SUCCESS' END,"
            "   CASE WHEN n % 50 = 0 THEN 'exception' END, at, fire_key(j.id, at), 'run ' || n, at, at, at + interval '1 s'"
            " FROM generate_series($1::int, $1 + $2::int - 1) AS n"
            " JOIN (SELECT id, revision_id, row_number() OVER () - 1 AS turn FROM jobs) j ON j.turn = n % 1000,"
            " LATERAL (SELECT date_trunc('minute', clock_timestamp()) - (($3::int - n) / 1000 + 1) * interval '1 minute'"
            "          AS at) t ORDER BY n",
            first,
            _CHUNK,
            rows,
        )
    bench.sql("ALTER TABLE job_logs RESET (autovacuum_enabled)")
    bench.vacuum("job_logs")
    hub = bench.start(64)
    person = hub.person()
    figures = []
    for what, path in (
        ("overview", _PAGES[0]),
        ("runs page", _PAGES[1]),
        ("Job page", "/admin/jobs/details/job-1"),
    ):
        _first_byte(person, path)
        took = [_first_byte(person, path) for _ in range(100)]
        figures.append(Figure("9", f"{what} at {rows} runs, first byte p99", quantile(took, 0.99), "ms", 100))
    bench.end(hub)
    return figures
