"""One run of a Job class without hub and database, through the engine's own parts: for authors of Jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from connecthub.engine import calls, outcome
from connecthub.engine.calls import Isolated
from connecthub.engine.held import HeldRun
from connecthub.engine.outcome import Outcome, Returned
from connecthub.engine.pool import Pool
from connecthub.logs import let_through
from connecthub.plugins import BaseJob
from connecthub.security.redaction import Masker
from connecthub.storage.runs import Claim


class _Masker(Masker):
    """Remembers what it was told to hide."""

    __slots__ = ("added",)

    def __init__(self, secrets: dict[str, Any]) -> None:
        super().__init__(secrets)
        self.added: list[str] = []

    def add(self, value: object) -> None:
        self.added.append(str(value))
        super().add(value)


class OnceRun(HeldRun):
    """A run that nobody has claimed. `told` is every call of ctx.progress."""

    def __init__(self, claim: Claim, masker: Masker, timeout_s: float, cancel_at: int | None) -> None:
        super().__init__(claim, math.inf, self._end, self._end, masker=masker)
        self.ended: asyncio.Future[Returned | None] = asyncio.get_running_loop().create_future()
        self.timeout_s = timeout_s
        self.told: list[tuple[int, int | None]] = []
        self._cancel_at = cancel_at
        self._is_cancelled = False

    def begin(self) -> None:
        """Its timeout counts from here; no hub looks at it."""
        super().begin()
        if self.timeout_s:
            loop = self.ended.get_loop()
            loop.call_soon_threadsafe(lambda: loop.call_later(self.timeout_s, self.stop, "timeout"))

    def _end(self, run: HeldRun, how: Returned | None) -> None:
        self.settle()
        if not self.ended.done():
            self.ended.set_result(how)

    def asked_to_stop(self) -> bool:
        """At once, where `cancel_at` says so."""
        return self._is_cancelled or super().asked_to_stop()

    def tell_progress(self, done: int, total: int | None) -> None:
        """Cancels the run as soon as `cancel_at` is done."""
        super().tell_progress(done, total)
        self.told.append((done, total))
        if self._cancel_at is not None and done >= self._cancel_at:
            self._is_cancelled = True
            self.ended.get_loop().call_soon_threadsafe(self.stop, "cancelled")


@dataclass(frozen=True)
class Ended:
    """What a hub would store of the run, its log as text; `masked` is every text given to ctx.mask.

    `returned`: the code is over, and does not go on although it was asked to stop.
    """

    outcome: Outcome
    returned: bool
    log: str
    progress: list[tuple[int, int | None]]
    masked: list[str]


async def run_once(
    plugin: type[BaseJob] | Isolated,
    params: dict[str, Any],
    secrets: dict[str, Any],
    *,
    job_id: str,
    timeout_s: float = 0,
    cancel_at: int | None = None,
    scheduled_for: datetime | None = None,
    attempt: int = 1,
    begin: Callable[[OnceRun], None] = lambda run: None,
) -> Ended:
    """Run `plugin` to its end; whatever it raises is in the outcome.

    Without `scheduled_for` it is a run that a person started. `timeout_s` 0: no limit. `begin` is given the
    run before it begins, to stop it by later. Call it within `capture.capturing()`, or the log stays empty.
    """
    now, masker = datetime.now(UTC), _Masker(secrets)
    key = f"run:{uuid4()}" if scheduled_for is None else scheduled_for.isoformat()
    claim = Claim(
        id=1,
        job_id=job_id,
        revision_id=1,
        trigger="manual" if scheduled_for is None else "schedule",
        scheduled_for=scheduled_for,
        attempt=attempt,
        idempotency_key=f"{job_id}:{key}",
        params=None,
        cancel_requested=False,
        due_at=now,
        claimed_at=now,
    )
    run = OnceRun(claim, masker, timeout_s, cancel_at)
    pool = Pool(1, on_free=lambda: None)
    try:
        begin(run)
        with let_through("INFO"):
            calls.begin(pool, run, plugin, params, secrets)
            returned = await run.ended
        await asyncio.sleep(0)  # a stop that the plugin's thread asked for just before its return counts
        run.log.close()
        ended = outcome.decide(returned, run.stop_reason, masker, run.log.warnings)
        return Ended(ended, returned is not None, run.log.text(), run.told, masker.added)
    finally:
        await pool.close()
