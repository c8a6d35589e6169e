"""Rows 5, 7 and 9: what people notice."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from math import inf

from tests.benchmarks.bench import Bench, figure_of, quantile
from tests.benchmarks.figures import Figure, Size
from tests.benchmarks.pace import paced
from tests.faults.stage import Hub
from tests.program import Person

_CHUNK = 20_000
_LATE = "0.02"  # a bucket of the metric
_PAGES = ("/admin/", "/admin/joblogs/list")
_JOBS = 999  # of row 9: with one more, pages share what they read


def _run_now(bench: Bench, person: Person, begun: float, seconds: float) -> dict[float, float]:
    """When each of 20 POSTs a second should go out, and when the plugin says that it began, both in seconds."""
    sent: dict[int, float] = {}
    for at in paced(begun, 20, int(seconds * 20)):
        answer = person.post("/admin/jobs/now-1/run")
        found = re.search(r"/details/(\d+)", answer.headers["location"])
        assert found is not None
        sent[int(found[1])] = at
    bench.settle(120)
    rows = bench.sql(
        "SELECT id, (result->>'at')::float8 AS at FROM job_logs WHERE id = ANY($1) AND status = 'SUCCESS'",
        list(sent),
    )
    if len(rows) != len(sent):
        raise AssertionError(f"{len(sent)} runs were asked for, {len(rows)} succeeded")
    return {sent[row["id"]]: row["at"] for row in rows}


def run_now(bench: Bench, size: Size) -> list[Figure]:
    """Row 5: alone, and while a burst goes on."""
    bench.fill(size.due, "NothingJob", prefix="burst")
    bench.fill(1, "StampedJob", prefix="now")
    hub = bench.start(64)
    person = hub.person()
    _run_now(bench, person, time.time(), 1)
    alone: list[float] = []
    under: list[float] = []
    for _ in range(size.times):
        alone += [began - at for at, began in _run_now(bench, person, time.time(), 10).items()]
        mark = bench.next_minute()
        bench.arm("burst", mark)
        bench.sleep_until(mark)
        asked = _run_now(bench, person, mark.timestamp(), 1.5)
        end = _end_of_burst(bench, mark, size.due)
        under += [began - at for at, began in asked.items() if at < end]
    bench.arm("none", mark)
    bench.settle(120)
    bench.require_once()
    bench.end(hub)
    return [
        Figure("5", "run now, POST to plugin start, p50", quantile(alone, 0.5) * 1000, "ms", 5),
        Figure("5", "the same, p99", quantile(alone, 0.99) * 1000, "ms", 15),
        Figure("5", f"the same while {size.due} due Jobs run, p99", quantile(under, 0.99) * 1000, "ms", 250),
    ]


def _end_of_burst(bench: Bench, mark: datetime, due: int) -> float:
    row = bench.sql(
        "SELECT count(*) AS good, extract(epoch FROM max(finished_at))::float8 AS ended FROM job_logs"
        " WHERE scheduled_for = $1 AND status = 'SUCCESS'",
        mark,
    )[0]
    if row["good"] != due:
        raise AssertionError(f"{due} runs were due, {row['good']} succeeded")
    return float(row["ended"])


def _lag(hub: Hub) -> tuple[float, float]:
    """How often the hub has looked at its event loop, and how often that came in time."""
    name = "connecthub_loop_lag_seconds"
    return figure_of(hub, f"{name}_count"), figure_of(hub, f'{name}_bucket{{le="{_LATE}"}}')


def admin_under_load(bench: Bench, size: Size) -> list[Figure]:
    """Row 7: pages at 10 requests a second, while so many Jobs are due each minute, and as many runs drain in between.

    As where a Prometheus reads the hub's figures, each fifteen seconds.
    """
    bench.fill(size.due, "NothingJob", prefix="due")
    bench.fill(1000, "NothingJob", prefix="fed")
    hub = bench.start(64)
    person = hub.person()
    mark = bench.next_minute()
    bench.arm("due", mark)
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            bench.queue(size.due, "fed")
            bench.until(
                lambda: not bench.value("SELECT EXISTS (SELECT FROM job_logs WHERE status = 'QUEUED')"), 120
            )

    def read_figures() -> None:
        while not stop.wait(15):
            assert figure_of(hub, "connecthub_starts_total")

    bench.sleep_until(mark, -5)
    looks, in_time = _lag(hub)
    took = []
    with ThreadPoolExecutor(2) as beside:
        others = [beside.submit(feed), beside.submit(read_figures)]
        try:
            for number, at in enumerate(paced(time.time(), 10, 10 * size.seconds * size.times)):
                assert person.get(_PAGES[number % 2]).status_code == 200
                took.append(time.time() - at)
        finally:
            stop.set()
    for other in others:
        other.result()
    looks, in_time = (now - before for now, before in zip(_lag(hub), (looks, in_time), strict=True))
    bench.arm("none", mark)
    bench.settle(120)
    _end_of_burst(bench, mark, size.due)
    bench.require_once()
    bench.end(hub)
    late = 100 * (1 - in_time / max(looks, 1))
    return [
        Figure("7", "overview and runs page while runs drain, whole answer p99", quantile(took, 0.99) * 1000, "ms", 100),
        Figure("7", f"of {looks:.0f} looks at the event loop, those over 20 ms late", late, "%", 1),
    ]  # fmt: skip


def pages(bench: Bench, size: Size) -> list[Figure]:
    """Row 9: the pages over a million runs (ten with --full), one request after the other."""
    rows = 10_000_000 if size.full else 1_000_000
    bench.fill(_JOBS, "NothingJob")
    _fill_runs(bench, rows)
    hub = bench.start(64)
    person = hub.person()
    figures = []
    for what, path, shows in (
        ("overview", _PAGES[0], "/admin/jobs/details/job-"),
        ("runs page", _PAGES[1], f'/admin/joblogs/details/{rows}"'),
        ("Job page", "/admin/jobs/details/job-1", "/admin/joblogs/details/"),
    ):
        first, *took = (_first_byte(person, path) for _ in range(101))
        assert shows in person.get(path).text, path
        at = f"{what} at {rows} runs, first byte"
        figures.append(Figure("9", f"{at} p99", quantile(took, 0.99), "ms", 100))
        figures.append(Figure("9", f"{at} of the first look", first, "ms", inf))
    bench.end(hub)
    return figures


def _fill_runs(bench: Bench, rows: int) -> None:
    bench.sql("ALTER TABLE job_logs SET (autovacuum_enabled = off)")
    for first in range(1, rows, _CHUNK):
        bench.sql(
            "INSERT INTO job_logs (job_id, revision_id, trigger, status, reason, scheduled_for, idempotency_key, message,"
            " queued_at, started_at, finished_at)"
            " SELECT j.id, j.revision_id, 'schedule', CASE WHEN n % 50 = 0 THEN 'FAILURE' ELSE 'SUCCESS' END,"
            "   CASE WHEN n % 50 = 0 THEN 'exception' END, at, fire_key(j.id, at), 'run ' || n, at, at, at + interval '1 s'"
            " FROM generate_series($1::int, $1 + $2::int - 1) AS n"
            " JOIN (SELECT id, revision_id, row_number() OVER () - 1 AS turn FROM jobs) j ON j.turn = n % $4::int,"
            " LATERAL (SELECT date_trunc('minute', clock_timestamp())"
            "          - (($3::int - n) / $4::int + 1) * interval '1 minute' AS at) t ORDER BY n",
            first,
            _CHUNK,
            rows,
            _JOBS,
        )
    bench.sql("ALTER TABLE job_logs RESET (autovacuum_enabled)")
    bench.vacuum("job_logs")


def _first_byte(person: Person, path: str) -> float:
    begun = time.perf_counter()
    with person.stream("GET", path) as answer:
        assert answer.status_code == 200, path
        next(answer.iter_raw())
        took = time.perf_counter() - begun
        answer.read() if not answer.is_stream_consumed else None
    return took * 1000
