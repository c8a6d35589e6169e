"""The engine of one hub: its parts, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from connecthub.clock import boottime
from connecthub.config import Settings
from connecthub.engine.dispatcher import Dispatcher
from connecthub.engine.endings import Endings
from connecthub.engine.held import HeldRuns
from connecthub.engine.leases import LIVE_S, Leases
from connecthub.engine.looper import Every
from connecthub.engine.pool import Pool
from connecthub.engine.runner import Runner
from connecthub.engine.tick import Ticker
from connecthub.plugins.loader import Loader
from connecthub.security.vault import Vault
from connecthub.storage import runs
from connecthub.storage.database import UNAVAILABLE, Database

log = logging.getLogger(__name__)

SHUTDOWN_GRACE_S = 60.0
_STALE_TICK_S = 120.0


class Hub:
    """Made and started on the hub's loop; `db` is for the engine alone."""

    def __init__(self, db: Database, vault: Vault, loader: Loader, settings: Settings) -> None:
        self._db = db
        self._lease_s = settings.pool.lease_s
        self._beat_s = settings.heartbeat_seconds
        self.held = HeldRuns()
        self._pool = Pool(settings.pool.size, on_free=self._wake)
        self._endings = Endings(db, self.held.worker_id, self._on_stored)
        runner = Runner(db, vault, loader, self._pool, self.held, self._endings, settings.pool.timeout_s)
        self._dispatcher = Dispatcher(db, self._pool, runner, self.held, self._endings, self._lease_s)
        self._leases = Leases(db, self.held, self._dispatcher, self._lease_s)
        self._ticker = Ticker(db, on_queued=self._queued)
        self._unlisten: Callable[[], Awaitable[None]] | None = None
        self._loops: list[Every] = []

    def start(self) -> None:
        """Tick, claim and beat from now on."""
        slowest = self._lease_s / 4
        self._loops = [
            Every("heartbeat", self._beat_s, self._leases.beat_once, slowest),
            Every("reaper", self._beat_s, self._leases.reap_once, slowest),
            Every("live log", LIVE_S, self._leases.show_once, slowest),
            Every("listener", 1.0, self._listen_once, slowest),
        ]
        self._ticker.start()
        self._dispatcher.wake()

    async def stop(self, grace_s: float = SHUTDOWN_GRACE_S) -> None:
        """No new ticks and claims; going runs get `grace_s`, then they are CANCELLED with reason shutdown."""
        await self._ticker.stop()
        await self._dispatcher.stop()
        # Rule 19: what has not started goes back to the queue, now that the last claim has answered.
        # Refused before anything is awaited: what is given back must not begin meanwhile.
        unstarted = [run_id for run_id, run in self.held.items() if run.started_at is None]
        for run_id in unstarted:
            self.held.pop(run_id).refused = True
        with contextlib.suppress(*UNAVAILABLE):
            await runs.release(self._db, self.held.worker_id, unstarted)
        await self.held.drain(grace_s)
        for run in list(self.held.values()):
            run.stop("shutdown", grace_s=2.0)
        await self.held.drain(5.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._endings.flush(), 3.0)
        for loop in self._loops:
            await loop.stop()
        await self._endings.stop()
        if self._unlisten is not None:
            with contextlib.suppress(*UNAVAILABLE):
                await self._unlisten()
        await self._pool.close()

    def readiness(self) -> dict[str, str | None]:
        """Each part by name: None when well, else what is wrong."""
        now = boottime()
        tick_age = now - self._ticker.last_tick
        beat_age = now - self._leases.last_beat
        overdue = sum(run.is_overdue for run in self.held.values())
        return {
            "tick": f"the last tick was {tick_age:.0f} s ago" if tick_age > _STALE_TICK_S else None,
            "heartbeat": f"the last beat was {beat_age:.0f} s ago" if beat_age > self._lease_s else None,
            "pool": "all places are held by runs that do not end" if overdue >= self._pool.size else None,
        }

    @property
    def has_free_places(self) -> bool:
        """Whether more runs could begin here."""
        return self._pool.free > 0

    def _wake(self) -> None:
        self._dispatcher.wake()

    def _queued(self) -> None:
        self._dispatcher.wake()

    def _on_stored(self, run_id: int, retry_delay_s: int | None) -> None:
        run = self.held.get(run_id)
        if run is not None:
            run.stored = True
            self.held.let_go(run)
        if retry_delay_s is not None:
            self._dispatcher.wake_in(retry_delay_s + 0.01)
        self._dispatcher.wake()

    async def _listen_once(self) -> None:
        if self._unlisten is None:
            self._unlisten = await self._db.listen(self._heard)
            self._dispatcher.wake()

    def _heard(self, payload: str) -> None:
        if payload == "":
            self._unlisten = None  # the connection ended: the listener makes a new one
        elif payload.startswith("cancel "):
            self._leases.cancel(int(payload.split()[1]))
        else:
            self._dispatcher.wake()
