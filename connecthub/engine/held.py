"""The runs that this hub holds: claimed, and not yet both returned and stored."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from connecthub.clock import boottime
from connecthub.engine.capture import RunLog
from connecthub.engine.outcome import Returned
from connecthub.engine.pool import Call
from connecthub.plugins import RunContext
from connecthub.security.redaction import Masker
from connecthub.storage.runs import Claim

STOP_GRACE_S = 5.0  # from the request to stop until the end is stored although the code is still going


@dataclass(eq=False)
class HeldRun:
    """One run from its claim on. `lease_until` and `claimed_at_boot` count on this machine's boot clock."""

    claim: Claim
    lease_until: float
    claimed_at_boot: float = field(default_factory=boottime)
    masker: Masker = field(default_factory=lambda: Masker({}))
    log: RunLog = field(init=False)
    ctx: RunContext = field(init=False)
    call: Call | None = None
    started_at: datetime | None = None
    started_at_boot: float | None = None
    renew_until: float | None = None
    progress: str | None = None
    progress_changes: int = 0
    stored_changes: int = 0
    stop_reason: str | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    beaten: asyncio.Event = field(default_factory=asyncio.Event)
    refused: bool = False  # a beat found it no longer RUNNING before it had started
    ended: asyncio.Future[Returned | None] = field(init=False)
    stored: bool = False
    returned: bool = False

    def __post_init__(self) -> None:
        self.log = RunLog(self.masker)
        self.ended = asyncio.get_running_loop().create_future()
        if self.claim.cancel_requested:
            self.stop_reason = "cancelled"

    def begin(self) -> None:
        """The plugin begins now: `started_at` is the database's clock, carried on by the boot clock."""
        now = boottime()
        self.started_at_boot = now
        self.started_at = self.claim.claimed_at + timedelta(seconds=max(0.0, now - self.claimed_at_boot))

    def stop(self, reason: str, grace_s: float = STOP_GRACE_S) -> None:
        """Ask the run to stop; after `grace_s` its end is stored even if the code has not returned."""
        if self.stop_reason is not None or self.ended.done():
            return
        self.stop_reason = reason
        self.stopping.set()
        if self.started_at_boot is None:
            return
        self.ctx.cancel_event.set()
        if self.call is not None:
            self.call.interrupt()
        asyncio.get_running_loop().call_later(grace_s, self._give_up)

    def _give_up(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    @property
    def is_overdue(self) -> bool:
        """Its end is decided, but its code is still going."""
        return self.ended.done() and self.call is not None and not self.call.future.done()

    @property
    def changes(self) -> int:
        """Grows with everything worth showing."""
        return self.log.changes + self.progress_changes + (self.started_at is not None)


class HeldRuns(dict[int, HeldRun]):
    """By run id; `worker_id` is who holds them, fresh at each start of a hub."""

    def __init__(self) -> None:
        super().__init__()
        self.worker_id: UUID = uuid4()
        self._emptied = asyncio.Event()

    def let_go(self, run: HeldRun) -> None:
        """Forget a run once it is both returned and stored."""
        if run.stored and run.returned:
            self.pop(run.claim.id, None)
            if not self:
                self._emptied.set()

    async def drain(self, seconds: float) -> None:
        """Return when nothing is held any more, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self:
                    self._emptied.clear()
                    await self._emptied.wait()
