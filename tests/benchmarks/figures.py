"""What a row of the table measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value and its goal; `is_least`: the goal is the least it should be, not the most."""

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
        bound = "at least" if self.is_least else "at most"
        ratio = self.value / self.goal if self.goal else float("inf")
        mark = "met" if self.is_met else "MISSED"
        return (
            f"| {self.row} | {self.what} | {bound} {self.goal:g} {self.unit} | {self.value:.4g} {self.unit} |"
            f" {ratio:.2f} | {mark} |"
        )


HEAD = "| row | measure | goal | figure | figure / goal | |\n| --- | --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Size:
    """How much a run of the table does; the defaults of `--full` are the goals' own."""

    due: int = 10_000
    times: int = 5
    seconds: int = 60
    full: bool = False
