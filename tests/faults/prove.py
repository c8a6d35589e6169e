"""Seeded chaos: `python -m tests.faults.prove --seed N --minutes M --hubs 3`.

Hubs are killed, put to sleep, cut off and started again, PostgreSQL falls over and comes back, answers are
swallowed, and people start, cancel and retry runs, while every-minute Jobs of all kinds fire. In the end the
database is compared with what the plugins themselves wrote outside of it. Prints one table; on failure also
the seed and the shortest history of a run or fire time concerned, and exits with status 1.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from connecthub.errors import RefusedError
from connecthub.storage import requests
from tests.faults.history import Verdict
from tests.faults.proxy import Proxy
from tests.faults.stage import ACTOR, CANARY, LEASE_S, Hub, Stage

KINDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("AsyncJob", {}, {}),
    ("AsyncJob", {"seconds": 3}, {"rerun_lost": True, "max_attempts": 3, "retry_delays": [0, 1]}),
    ("AsyncJob", {"fails": 1}, {"max_attempts": 3, "retry_delays": [0, 2]}),
    ("AsyncJob", {"fails": 9}, {"max_attempts": 2, "retry_delays": [1]}),
    ("ThreadJob", {}, {"overlap": "queue"}),
    ("ThreadJob", {"seconds": 4}, {"misfire": "all"}),
    ("ThreadJob", {"seconds": 1}, {"overlap": "allow", "rerun_lost": True, "max_attempts": 2}),
    ("ThreadJob", {"seconds": 20}, {"timeout_s": 2}),
    ("AsyncJob", {"seconds": 70}, {"misfire": "skip"}),
    ("AsyncJob", {"seconds": 0.5}, {"misfire": "all", "overlap": "allow", "priority": 5}),
]
FEW: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("ProcessJob", {"seconds": 1}, {}),
    ("ProcessJob", {"seconds": 30}, {"timeout_s": 3}),
    ("BlockingJob", {"seconds": 1.5}, {}),
    ("SwallowJob", {"seconds": 5}, {"timeout_s": 1}),
    ("ExitJob", {"what": "SystemExit"}, {}),
]


class Chaos:
    """The stage, its hubs each behind a proxy of its own, and what is done to them."""

    def __init__(self, stage: Stage, seed: int, hubs: int) -> None:
        self.stage = stage
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.slowest_stop_s = 0.0
        self.proxies = [stage.proxy() for _ in range(hubs)]
        self.hubs: list[Hub] = [self._start(proxy) for proxy in self.proxies]
        self._later: list[tuple[float, Callable[[], None]]] = []

    def _start(self, proxy: Proxy) -> Hub:
        return self.stage.hub(proxy, CONNECTHUB_POOL__SIZE="48", CONNECTHUB_LOGS__LEVEL="WARNING")

    def rage(self, seconds: float) -> None:
        """Break something every few seconds."""
        actions: list[tuple[Callable[[], None], int]] = [
            (self.kill_hub, 3),
            (self.sleep_hub, 3),
            (self.stop_hub, 1),
            (self.cut_off, 3),
            (self.cut_connections, 3),
            (self.swallow_answer, 4),
            (self.slow_network, 1),
            (self.crash_server, 1),
            (self.ask_something, 6),
        ]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            [action] = self.chance.choices([one for one, _ in actions], [weight for _, weight in actions])
            self.done[action.__name__] += 1
            action()
            self._wait(self.chance.uniform(0.2, 3))
        self._wait(2 * LEASE_S + 1)  # what was begun is undone
        assert not self._later

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for entry in [entry for entry in self._later if entry[0] <= time.monotonic()]:
                self._later.remove(entry)
                entry[1]()
            time.sleep(0.02)

    def _after(self, seconds: float, undo: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    def _any(self) -> int:
        return self.chance.randrange(len(self.hubs))

    def kill_hub(self) -> None:
        """SIGKILL, and another one in its place."""
        number = self._any()
        self.stage.kill(self.hubs[number])
        self.proxies[number].hand_on()
        self._replace(number)

    def _replace(self, number: int) -> None:
        """A start needs the server: where it is away just now, the next look tries again."""
        try:
            self.hubs[number] = self._start(self.proxies[number])
        except AssertionError:
            self._after(1, lambda: self._replace(number))

    def stop_hub(self) -> None:
        """SIGTERM, to one that is awake, and another one in its place."""
        number = self._any()
        hub = self.hubs[number]
        self.stage.stopped.add(hub.process.pid)
        _wake(hub)
        begin = time.monotonic()
        if hub.process.poll() is None:
            hub.stop()
        self.slowest_stop_s = max(self.slowest_stop_s, time.monotonic() - begin)
        self._replace(number)

    def sleep_hub(self) -> None:
        """SIGSTOP for up to two leases."""
        hub = self.hubs[self._any()]
        if hub.process.poll() is None:
            hub.kill(signal.SIGSTOP)
            self._after(self.chance.uniform(0, 2 * LEASE_S), lambda: _wake(hub))

    def cut_off(self) -> None:
        """A network that drops everything for up to two leases."""
        proxy = self.proxies[self._any()]
        proxy.drop()
        self._after(self.chance.uniform(0, 2 * LEASE_S), proxy.hand_on)

    def cut_connections(self) -> None:
        """Some connections of a hub, or all."""
        self.proxies[self._any()].cut(self.chance.choice([1, 2, None]))

    def swallow_answer(self) -> None:
        """The server does it, and the answer never comes."""
        ends = [["INSERT INTO job_logs", "COMMIT"], ["WITH ready AS"], ["SET status = e.status"], ["COMMIT"]]
        self.proxies[self._any()].swallow = self.chance.choice(ends)

    def slow_network(self) -> None:
        """A fifth of a second more for each piece."""
        proxy = self.proxies[self._any()]
        proxy.delay_s = 0.2
        self._after(3, lambda: setattr(proxy, "delay_s", 0.0))

    def crash_server(self) -> None:
        """`pg_ctl stop -m immediate`, and up again after a while."""
        self.stage.crash_server()
        time.sleep(self.chance.uniform(0, 6))  # nothing is undone meanwhile: starting a hub needs the server
        self.stage.start_server()

    def ask_something(self) -> None:
        """A person starts, cancels or retries."""
        ask = self.chance.choice(["run", "cancel", "retry"])
        jobs = [row["id"] for row in self.stage.sql("SELECT id FROM jobs ORDER BY id")]
        runs = [row["id"] for row in self.stage.sql("SELECT id FROM job_logs ORDER BY id DESC LIMIT 200")]
        if ask == "run" or not runs:
            self.stage.run(self.chance.choice(jobs))
            return
        call = requests.cancel_run if ask == "cancel" else requests.retry_run
        try:
            self.stage.do(call(self.stage.db, self.chance.choice(runs), actor=ACTOR))
        except RefusedError:
            self.done["refused"] += 1


def _wake(hub: Hub) -> None:
    if hub.process.poll() is None:
        hub.kill(signal.SIGCONT)


def make_jobs(stage: Stage, number: int) -> None:
    """`number` Jobs that fire each minute, of all kinds; of the heavy ones two each."""
    kinds = [kind for kind in FEW for _ in range(2)]
    kinds += [KINDS[index % len(KINDS)] for index in range(number - len(kinds))]
    for index, (handler, params, columns) in enumerate(kinds):
        stage.job(f"{handler}-{index}", handler, params, cron_expr="* * * * *", **columns)


def together(stage: Stage, lines: Iterable[dict[str, Any]]) -> list[str]:
    """Pairs of runs of one Job whose plugins were at work at once although its policy forbids it.

    A run that was LOST may go on where it is (its hub slept or was cut off), and people start what they like.
    """
    alone = {
        row["id"]: row["job_id"]
        for row in stage.sql(
            "SELECT l.id, l.job_id FROM job_logs l JOIN jobs j ON j.id = l.job_id"
            " WHERE l.trigger = 'schedule' AND j.overlap <> 'allow' AND l.status <> 'LOST'"
            " AND NOT l.meta ? 'lease_expired_at'"
        )
    }
    spans: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    begun: dict[int, float] = {}
    for line in lines:
        if line["run_id"] not in alone:
            continue
        if line["event"] == "begin":
            begun[line["run_id"]] = line["at"]
        elif line["event"] in ("end", "fails") and line["run_id"] in begun:
            spans[alone[line["run_id"]]].append((begun[line["run_id"]], line["at"], line["run_id"]))
    found = []
    for job_id, times in spans.items():
        times.sort()
        for (_, end, one), (begin, _, other) in pairwise(times):
            if begin < end:
                found.append(f"runs {one} and {other} of {job_id} at once")
    return found


def leaks(stage: Stage) -> list[str]:
    """Places where the secret of the Jobs stands in clear."""
    found = [f"the log of hub {hub.process.pid}" for hub in stage.hubs if CANARY in hub.log]
    rows = stage.value("SELECT count(*) FROM job_logs l WHERE l::text LIKE '%' || $1 || '%'", CANARY)
    return found + ([f"{rows} rows of job_logs"] if rows else [])


def history_of(stage: Stage, fault: str) -> str:
    """All that is known of the run or Job that `fault` names."""
    words = fault.replace(",", " ").split()
    runs = [int(word) for word in words if word.isdigit()]
    jobs = [word for word in words if "Job-" in word]
    rows = stage.sql(
        "SELECT id, job_id, trigger, status, reason, scheduled_for, attempt, retry_of, worker_id, queued_at,"
        " started_at, finished_at, lease_expires_at, meta FROM job_logs WHERE idempotency_key IN"
        " (SELECT idempotency_key FROM job_logs WHERE id = ANY($1::bigint[]) OR job_id = ANY($2::text[]))"
        " ORDER BY id LIMIT 30",
        runs,
        jobs,
    )
    ids = {row["id"] for row in rows}
    told = [line for line in stage.lines() if line["run_id"] in ids]
    return "\n".join([*(str(dict(row)) for row in rows), *(json.dumps(line) for line in told)])


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.prove", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--hubs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        make_jobs(stage, options.jobs)
        first = stage.make_due(1)
        chaos = Chaos(stage, options.seed, options.hubs)
        chaos.rage(options.minutes * 60)
        calm = time.monotonic()
        stage.until_ticked()
        stage.sql(
            "UPDATE jobs SET enabled = false"
        )  # or the next minute would begin before this one has ended
        due = stage.fires(first)
        stage.settle(240)
        verdict = stage.judge(due)
        verdict.faults["at once"] = together(stage, stage.lines())
        verdict.faults["leaked"] = leaks(stage)
        return report(stage, options.seed, chaos, verdict, time.monotonic() - calm)


def report(stage: Stage, seed: int, chaos: Chaos, verdict: Verdict, recovery_s: float) -> int:
    """Print the table, and what is known of the first fault of each kind; the exit status."""
    figures = {
        "fire times due": verdict.due,
        "rows": verdict.attempts,
        "plugins begun": len(stage.told("begin")),
        "LOST": verdict.lost,
        "missed": verdict.missed,
        "doubled": verdict.doubled,
        "results lost": verdict.results_lost,
        "unended": verdict.unended,
        "two at once": len(verdict.faults["at once"]),
        "secrets in clear": len(verdict.faults["leaked"]),
        "calm after (s)": round(recovery_s, 1),
        "slowest stop (s)": round(chaos.slowest_stop_s, 1),
        **{f"done: {name}": count for name, count in sorted(chaos.done.items())},
    }
    for name, figure in figures.items():
        print(f"{name:<26}{figure:>10}")
    faults = {kind: found for kind, found in verdict.faults.items() if found}
    for kind, found in faults.items():
        print(f"\n{kind}: {len(found)}, the first: {found[0]}\nseed {seed}\n{history_of(stage, found[0])}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
