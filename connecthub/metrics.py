"""What a hub counts and measures, for Prometheus: names, units and labels stand here and nowhere else."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from connecthub import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which no rule or page of ours uses
_SECONDS = (0.005, 0.02, 0.1, 0.25, 1, 2.5, 10, 30, 60, 300, 900, 3600)


@dataclass(frozen=True)
class Reading:
    """A figure as it stands at the moment it is asked for."""

    name: str
    help: str
    value: float


class Metrics:
    """The metrics of one hub, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.fires = Counter(
            "connecthub_fires",
            "Fire times that ticks have dealt with.",
            ["status", "reason"],
            registry=registry,
        )
        self.starts = Counter("connecthub_starts", "Runs whose plugin was called.", registry=registry)
        self.results = Results()
        registry.register(self.results)
        self.lost = Counter("connecthub_lost_leases", "Runs that this hub found LOST.", registry=registry)
        self.duration = self._seconds("run_duration", "From the begin of the plugin to its end.")
        self.start_delay = self._seconds("start_delay", "From when a run was due to the begin of its plugin.")
        self.claim = self._seconds("claim", "From a question for runs to its answer.")
        self.tick = self._seconds("tick_lag", "From the minute mark to the end of its tick.")
        self.loop_lag = self._seconds("loop_lag", "How late the hub's event loop came round.")
        self.retention = Counter(
            "connecthub_retention_rows", "Rows that retention has deleted.", ["table"], registry=registry
        )
        build = Gauge(
            "connecthub_build_info", "1, with the version that runs.", ["version"], registry=registry
        )
        build.labels(__version__).set(1)

    def _seconds(self, name: str, help: str) -> Seconds:
        seconds = Seconds(f"connecthub_{name}_seconds", help)
        self.registry.register(seconds)
        return seconds

    def text(self, readings: Iterable[Reading] = ()) -> bytes:
        """Everything, and `readings`, in Prometheus's text format.

        A line for each Job takes its time (5 us): call it in a thread.
        """
        now = CollectorRegistry()
        now.register(_Now(readings))
        return generate_latest(self.registry) + generate_latest(now)


# What each run meets is counted here: the own `labels` and `observe` of the library, which lock and look
# through the buckets, were a tenth of what the hub needs for a run. Only the hub's loop uses these two.


class Results(Collector):
    """Ends of runs by Job, status and reason."""

    def __init__(self) -> None:
        self._tally: Tally[tuple[str, str, str]] = Tally()

    def count(self, job_id: str, status: str, reason: str) -> None:
        """One more."""
        self._tally[job_id, status, reason] += 1

    def collect(self) -> Iterable[CounterMetricFamily]:
        """What the registry asks for."""
        family = CounterMetricFamily(
            "connecthub_results", "Ends of runs that were stored.", labels=["job_id", "status", "reason"]
        )
        for labels, ends in list(self._tally.items()):  # the loop goes on counting
            family.add_metric(labels, ends)
        yield family


class Seconds(Collector):
    """How long things take: a histogram."""

    def __init__(self, name: str, help: str) -> None:
        self._name, self._help = name, help
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """One took so long."""
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What the registry asks for."""
        bounds = [*map(str, map(float, _SECONDS)), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        family = HistogramMetricFamily(self._name, self._help)
        family.add_metric([], buckets, self._sum)
        yield family


class _Now(Collector):
    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for reading in self._readings:
            yield GaugeMetricFamily(f"connecthub_{reading.name}", reading.help, value=reading.value)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []
