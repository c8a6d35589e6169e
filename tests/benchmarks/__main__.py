"""`python -m tests.benchmarks [ROW ...]`: the table of docs/performance.md, measured here and now.

Rows: nothing parts old peers waits ticks now long idle admin pages logs hubs sick, all of them without a name. `--due`
Jobs on one mark, medians of `--times`, `--seconds` where a row lasts; `--full` takes the million Jobs, the ten
million runs and the ten minutes of the goals. A wrong result is an error; a missed goal is only shown. The figures
are in benchmarks.json afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from math import isinf
from pathlib import Path

from tests.benchmarks import bursts, long, parts, peers, people, sick, ticks
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import HEAD, Figure, Size

ROWS: dict[str, Callable[[Bench, Size], list[Figure]]] = {
    "nothing": bursts.nothing,
    "parts": parts.parts,
    "old": peers.old,
    "peers": peers.peers,
    "waits": bursts.waits,
    "ticks": ticks.ticks,
    "now": people.run_now,
    "long": long.back_to_back,
    "admin": people.admin_under_load,
    "idle": long.idle,
    "pages": people.pages,
    "logs": long.logs,
    "hubs": long.hubs,
    "sick": sick.sick,
}


def main() -> None:
    """Measure the rows that were named, print the table, and write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="ROW")
    parser.add_argument("--due", type=int, default=Size.due)
    parser.add_argument("--times", type=int, default=Size.times)
    parser.add_argument("--seconds", type=int, default=Size.seconds)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), metavar="FILE")
    args = parser.parse_args()
    size = Size(args.due, args.times, args.seconds, args.full)
    figures: list[Figure] = []
    servers: set[str] = set()
    print(HEAD, flush=True)
    for name in args.rows or ROWS:
        with tempfile.TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
            servers.add(bench.value("SHOW server_version"))
            for figure in ROWS[name](bench, size):
                figures.append(figure)
                print(figure, flush=True)
        _write(args.json, size, servers, figures)
    goals = [figure.is_met for figure in figures if not isinf(figure.goal)]
    print(f"{sum(goals)} of {len(goals)} goals met", file=sys.stderr)


def _write(path: Path, size: Size, servers: set[str], figures: list[Figure]) -> None:
    """What has been measured so far, and with what."""
    where = {
        "commit": _git("rev-parse", "HEAD"),
        "changed": _git("status", "--porcelain"),
        "python": platform.python_version(),
        "postgresql": sorted(servers),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "size": asdict(size),
    }
    shown = []
    for figure in figures:
        has_goal = not isinf(figure.goal)
        ratio = figure.value / figure.goal if has_goal else None
        goal = {"goal": figure.goal if has_goal else None, "ratio": ratio, "is_met": figure.is_met}
        shown.append({**asdict(figure), **goal})
    path.write_text(json.dumps({**where, "figures": shown}, indent=2) + "\n")


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
