"""Pure: what the database holds, what the outside witness saw, and what was due, judged by figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELLED", "LOST", "SKIPPED"})


@dataclass
class Verdict:
    """Figures of one history. `faults` tells, for each that should be 0, what went wrong with which key."""

    due: int = 0
    missed: int = 0  # fire times without a row, and not inside a SKIPPED span
    doubled: int = 0  # fire times with two runs of attempt 1, or runs whose plugin began twice
    results_lost: int = 0  # a plugin returned to a hub that lived on, and what it returned is not stored
    unended: int = 0  # rows that are still going
    lost: int = 0
    attempts: int = 0
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_clean(self) -> bool:
        """Whether nothing was missed, doubled or lost."""
        return not (self.missed or self.doubled or self.results_lost or self.unended)


def judge(
    rows: Sequence[Mapping[str, Any]],
    witness: Iterable[Mapping[str, Any]],
    due: Mapping[str, Iterable[datetime]],
    killed: frozenset[int] = frozenset(),
    stopped: frozenset[int] = frozenset(),
) -> Verdict:
    """Judge a history.

    `rows` are those of job_logs, `meta` as an object; `witness` the lines that plugins wrote; `due` the fire
    times of each Job; `killed` the process numbers of hubs that were killed: what returned there and was not
    stored died with its hub, and its row says LOST; `stopped` those of hubs that were told to stop: code that
    goes on after its run's end, and returns while the process exits, reaches nobody.
    """
    verdict = Verdict()
    _judge_fires(verdict, rows, due)
    _judge_starts(verdict, rows, list(witness), killed, stopped)
    for row in rows:
        verdict.attempts += 1
        verdict.lost += row["status"] == "LOST"
        if row["status"] not in ENDED:
            verdict.unended += 1
            verdict.faults["unended"].append(f"run {row['id']} of {row['job_id']} is {row['status']}")
    return verdict


def _judge_fires(
    verdict: Verdict, rows: Sequence[Mapping[str, Any]], due: Mapping[str, Iterable[datetime]]
) -> None:
    fired: Counter[tuple[str, datetime]] = Counter()
    spans: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    for row in rows:
        if row["trigger"] != "schedule" or row["attempt"] != 1 or row["scheduled_for"] is None:
            continue
        fired[row["job_id"], row["scheduled_for"]] += 1
        missed = row["meta"].get("missed")
        if missed:
            bounds = datetime.fromisoformat(missed["from"]), datetime.fromisoformat(missed["to"])
            spans[row["job_id"]].append(bounds)
    for job_id, times in due.items():
        for time in times:
            verdict.due += 1
            inside = any(begin <= time <= end for begin, end in spans[job_id])
            if not fired[job_id, time] and not inside:
                verdict.missed += 1
                verdict.faults["missed"].append(f"{job_id} at {time.isoformat()} has no row")
    for (job_id, time), count in fired.items():
        if count > 1:
            verdict.doubled += 1
            verdict.faults["doubled"].append(f"{job_id} at {time.isoformat()} has {count} runs")


def _judge_starts(
    verdict: Verdict,
    rows: Sequence[Mapping[str, Any]],
    witness: Sequence[Mapping[str, Any]],
    killed: frozenset[int],
    stopped: frozenset[int],
) -> None:
    by_id = {row["id"]: row for row in rows}
    begun = Counter(line["run_id"] for line in witness if line["event"] == "begin")
    for run_id, count in begun.items():
        if count > 1:
            verdict.doubled += 1
            verdict.faults["doubled"].append(f"the plugin of run {run_id} began {count} times")
    for line in witness:
        if line["event"] not in ("end", "fails") or line["pid"] in killed:
            continue
        row = by_id.get(line["run_id"])
        if row is None or not _is_stored(line["event"], row, may_miss_late=line["pid"] in stopped):
            status = "has no row" if row is None else f"is {row['status']} ({row['reason']})"
            verdict.results_lost += 1
            told = f"run {line['run_id']} came to its {line['event']} and {status}"
            verdict.faults["results lost"].append(told)


def _is_stored(event: str, row: Mapping[str, Any], *, may_miss_late: bool) -> bool:
    """After a cancel, a timeout, or as LOST a run keeps what it returned: with its end, or as late."""
    if event == "fails":
        return row["status"] in ("FAILURE", "CANCELLED") or (
            row["status"] == "LOST" and bool(row["traceback"])
        )
    ended = row["status"] in ("SUCCESS", "CANCELLED", "FAILURE", "LOST")
    return ended and (row["result"] is not None or "late_result" in row["meta"] or may_miss_late)
