"""The geometry of the drawings of runs: where each mark stands and how tall it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connecthub.storage.jobs import Row

HEIGHT = 96  # px of the drawing of durations
_LEAST = 3  # px, so that the shortest run is still seen and hit


@dataclass(frozen=True)
class Bar:
    """One run: `x` and `width` in percent, `y` and `height` in px."""

    run: Row
    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True)
class Bars:
    """Runs that ended, oldest left; `usual_y` is the line of the usual duration in px, None without one."""

    bars: list[Bar]
    usual_y: float | None
    longest_s: float


def bars(runs: Sequence[Row], usual_s: float | None) -> Bars:
    """How long the runs took; `runs` come newest first, those that never started are left out."""
    timed = [(run, seconds(run)) for run in reversed(runs)]
    drawn = [(run, took) for run, took in timed if took is not None]
    longest = max([took for _, took in drawn] + [usual_s or 0])
    scale = HEIGHT / longest if longest > 0 else 0
    step = 100 / max(len(drawn), 20)
    marks = [
        Bar(run, round(at * step, 3), round(step * 0.8, 3), *_tall(took * scale))
        for at, (run, took) in enumerate(drawn)
    ]
    return Bars(marks, None if usual_s is None else round(HEIGHT - usual_s * scale, 1), longest)


def seconds(run: Row) -> float | None:
    """How long a run took, None where it did not start or has not ended."""
    if run["started_at"] is None or run["finished_at"] is None:
        return None
    return float(max((run["finished_at"] - run["started_at"]).total_seconds(), 0))


def _tall(height: float) -> tuple[float, float]:
    height = max(height, _LEAST)
    return round(HEIGHT - height, 1), round(height, 1)
