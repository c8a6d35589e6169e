"""The runs that this hub holds: claimed, and not yet both returned and stored."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from connecthub.clock import boottime
from connecthub.engine import outcome
from connecthub.engine.capture import RunLog
from connecthub.engine.outcome import Returned
from connecthub.engine.plugin_loop import Call
from connecthub.logs import about_run
from connecthub.security.redaction import Masker
from connecthub.storage.revisions import Definition
from connecthub.storage.runs import Claim

STOP_GRACE_S = 5.0  # from the request to stop until the end is stored although the code is still going
KILLED_S = 2.0  # a process that is killed has gone by then, or hangs in the kernel


class LeaseStale(Exception):
    """The lease has run out before the plugin began: it must not, unless a beat finds the row RUNNING."""


class Withdrawn(Exception):
    """The run must not begin here: it was given back, or it is no longer this hub's."""


@dataclass(eq=False, slots=True)
class HeldRun:
    """One run from its claim on. `lease_until` and `claimed_at_boot` count on this machine's boot clock.

    `on_end` is called on the hub's loop, in `context`, with how its code returned, or with None where it is
    given up; then, once the code has returned all the same, `on_late` is.
    """

    claim: Claim
    lease_until: float
    on_end: Callable[[HeldRun, Returned | None], None]
    on_late: Callable[[HeldRun, Returned], None]
    definition: Definition | None = None  # None where its revision is gone
    claimed_at_boot: float = field(default_factory=boottime)
    masker: Masker = field(default_factory=lambda: Masker({}))
    log: RunLog = field(init=False)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    call: Call | None = None
    code: dict[str, str] | None = None  # which code runs, as Loader.code tells it
    timeout_s: float = 0
    stops_when_cut_off: bool = False  # rule 12
    started_at: datetime | None = None
    started_at_boot: float | None = None
    progress: str | None = None
    progress_changes: int = 0
    stored_changes: int = 0
    stop_reason: str | None = None
    stopping: asyncio.Event | None = None  # set by `stop`, for who waits for it
    _giving_up: asyncio.TimerHandle | None = None
    beaten: asyncio.Event | None = None  # set by each beat, for who waits for one
    refused: bool = False  # a beat found it no longer RUNNING before it had started
    is_withdrawn: bool = False
    _unbegun: list[None] = field(default_factory=lambda: [None])
    has_ended: bool = False  # its end is decided
    is_overdue: bool = False  # but its code goes on
    stored: bool = False
    returned: bool = False

    def __post_init__(self) -> None:
        self.log = RunLog(self.masker, (self.claim.id, self.claim.job_id))
        self.context.run(about_run.set, (self.claim.id, self.claim.job_id))
        if self.claim.cancel_requested:
            self.stop_reason = "cancelled"

    def begin(self) -> None:
        """The plugin begins now, in whatever thread it runs.

        `started_at` is the database's clock, carried on by the boot clock. Raises LeaseStale, and Withdrawn.
        """
        now = boottime()
        if now >= self.lease_until:
            raise LeaseStale
        if not self._take():
            raise Withdrawn
        self.started_at_boot = now
        self.started_at = self.claim.claimed_at + timedelta(seconds=max(0.0, now - self.claimed_at_boot))

    def withdraw(self) -> bool:
        """Keep the plugin from beginning; False where it has begun, or its end is decided already."""
        self.is_withdrawn = self._take() or self.is_withdrawn
        return self.is_withdrawn

    def settle(self) -> None:
        """Its end is decided: it neither begins nor is given back."""
        self.has_ended = True
        self._take()

    def _take(self) -> bool:
        """Whoever comes first, the plugin's thread or the hub's, has it: one list operation is atomic."""
        try:
            self._unbegun.pop()
        except IndexError:
            return False
        return True

    @property
    def is_late(self) -> bool:
        """Whether its timeout has passed since its plugin began."""
        begun = self.started_at_boot
        return bool(self.timeout_s) and begun is not None and boottime() >= begun + self.timeout_s

    @property
    def renew_until(self) -> float:
        """Rule 10: a run that hangs beyond its timeout and grace is not renewed (boot clock)."""
        if not self.timeout_s or self.started_at_boot is None or self.has_ended:
            return math.inf
        return self.started_at_boot + self.timeout_s + 2 * STOP_GRACE_S

    def stop(self, reason: str, grace_s: float = STOP_GRACE_S) -> None:
        """Ask the run to stop; after `grace_s` its end is stored even if the code has not returned.

        Asked again, its first reason stays, and the earliest of these moments counts.
        """
        if self.has_ended:
            return
        if self.stop_reason is None:
            self.stop_reason = reason
            if self.stopping is not None:
                self.stopping.set()
            if self.call is not None:
                self.call.interrupt()
        if self.call is not None:
            self._give_up_after(grace_s)

    def _give_up_after(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._giving_up is not None:
            if self._giving_up.when() <= loop.time() + seconds:
                return
            self._giving_up.cancel()
        self._giving_up = loop.call_later(seconds, self._give_up)

    def asked_to_stop(self) -> bool:
        """Whether the run should end; what `ctx.cancelled` tells."""
        return self.stop_reason is not None

    def _give_up(self) -> None:
        if self.has_ended or self.call is None:
            return
        if self.call.kill():  # its end follows
            self._giving_up = asyncio.get_running_loop().call_later(KILLED_S, self._give_up)
        else:
            self.is_overdue = True
            self.context.run(self.on_end, self, None)

    def code_returned(self, how: Returned) -> None:
        """Its code is over."""
        if self.is_overdue:
            self.is_overdue = False
            self.context.run(self.on_late, self, how)
        else:
            self.context.run(self.on_end, self, how)

    def tell_progress(self, done: int, total: int | None) -> None:
        """What `ctx.progress` was told; no figures are ignored."""
        text = outcome.progress_json(done, total)
        if text is not None:
            self.progress = text
            self.progress_changes += 1

    @property
    def changes(self) -> int:
        """Grows with everything worth showing."""
        return self.log.changes + self.progress_changes + (self.started_at is not None)


class HeldRuns(dict[int, HeldRun]):
    """By run id; `worker_id` is who holds them, fresh at each start of a hub."""

    def __init__(self) -> None:
        super().__init__()
        self.worker_id: UUID = uuid4()
        self._changed = asyncio.Event()

    def let_go(self, run: HeldRun) -> None:
        """Forget a run once it is both returned and stored."""
        if run.stored and run.returned:
            self.pop(run.claim.id, None)
            run.call = None  # it holds on to the run: only the collector would find the two
        self._changed.set()

    async def drain(self, seconds: float) -> None:
        """Return when the code of all has returned or is given up, or after `seconds`.

        Ends may still wait to be stored.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(run.returned or run.is_overdue for run in self.values()):
                    self._changed.clear()
                    await self._changed.wait()
