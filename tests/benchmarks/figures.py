"""What a row of the table measures."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf


@dataclass(frozen=True)
class Figure:
    """One measured value and its goal, infinite where there is none; `is_least`: the least it should be."""

    row: str
    what: str
    value: float
    unit: str
    goal: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the goal was reached."""
        return self.value >= self.goal if self.is_least else self.value <= self.goal

    def __str__(self) -> str:
        figure = f"{self.value:.4g} {self.unit}"
        if isinf(self.goal):
            return f"| {self.row} | {self.what} | | {figure} | | |"
        bound = "at least" if self.is_least else "at most"
        mark = "met" if self.is_met else "MISSED"
        return (
            f"| {self.row} | {self.what} | {bound} {self.goal:.4g} {self.unit} | {figure} |"
            f" {self.value / self.goal:.2f} | {mark} |"
        )


HEAD = "| row | measure | goal | figure | figure / goal | |\n| --- | --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Size:
    """How much a run of the table does; the defaults of `--full` are the goals' own."""

    due: int = 10_000
    times: int = 5
    seconds: int = 60
    full: bool = False
