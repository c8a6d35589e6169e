"""What the author of a Job sees: `BaseJob` and `RunContext`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel


def _ignore_mask(text: str) -> None:
    """Outside a hub there is no log to mask."""


def _ignore_progress(done: int, total: int | None) -> None:
    """Outside a hub nobody watches."""


def _never() -> bool:
    """Outside a hub nobody asks a run to stop."""
    return False


@dataclass(eq=False)
class RunContext:
    """The run that a plugin is part of. `run_id` is `job_logs.id`."""

    run_id: int
    job_id: str
    scheduled_for: datetime | None
    attempt: int
    trigger: Literal["schedule", "manual", "retry", "api"]
    idempotency_key: str
    on_mask: Callable[[str], None] = field(default=_ignore_mask, repr=False)
    on_progress: Callable[[int, int | None], None] = field(default=_ignore_progress, repr=False)
    asked_to_stop: Callable[[], bool] = field(default=_never, repr=False)

    @property
    def cancelled(self) -> bool:
        """True once the run should stop: a person cancelled it, it timed out, or the hub shuts down."""
        return self.asked_to_stop()

    def mask(self, text: str) -> None:
        """From now on hide `text` (a token got at run time, say) in everything this run stores."""
        self.on_mask(text)

    def progress(self, done: int, total: int | None = None) -> None:
        """Tell how far the run is: `done` of `total` units, `total` None where it is not known."""
        self.on_progress(done, total)


class BaseJob(ABC):
    """A Job class. Write `run`, plain or `async`; the first line of the class's docstring is its description.

    `Params` and `Secrets`, where set, are pydantic models that public_cfg and secret_cfg are checked against
    when a Job is saved. One object is made per run, without arguments.

    `isolation`: "thread" runs it inside the hub (a plain `run` in a thread, `async` on a plugin loop);
    "process" in a child with an interpreter of its own, which may crash, and which is killed with all that it
    has started where it does not stop when it is cancelled or timed out. Written as a literal in the class
    itself, "process" also keeps the hub from importing the module.
    `memory_mb`: so many MiB of data a child may use, None for no limit. macOS does not enforce it.
    """

    isolation: ClassVar[Literal["thread", "process"]] = "thread"
    memory_mb: ClassVar[int | None] = None

    Params: ClassVar[type[BaseModel] | None] = None
    Secrets: ClassVar[type[BaseModel] | None] = None

    ctx: RunContext

    @abstractmethod
    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        """Do the work and return what should be stored as the run's result: anything JSON, or None."""
