"""The engine of one hub: its parts, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket

from connecthub import __version__, failpoints
from connecthub.clock import boottime
from connecthub.config import Settings
from connecthub.engine.dispatcher import Dispatcher
from connecthub.engine.endings import Endings
from connecthub.engine.held import KILLED_S, HeldRuns
from connecthub.engine.leases import LIVE_S, Leases
from connecthub.engine.looper import Every
from connecthub.engine.pool import Pool
from connecthub.engine.retention import LOOK_S, Retention
from connecthub.engine.runner import Runner
from connecthub.engine.spool import Spool, Unstored
from connecthub.engine.tick import Ticker
from connecthub.metrics import Metrics, Reading
from connecthub.plugins.loader import Loader
from connecthub.security.vault import Vault
from connecthub.storage import health, hubs
from connecthub.storage.database import UNAVAILABLE, Database, Listener
from connecthub.storage.hubs import HubState
from connecthub.storage.late import LateReturn, clear_leases

log = logging.getLogger(__name__)

_ANSWER_S = 2.0  # at shutdown the database gets this long for each answer
_STOP_S = 2.0  # from the request to stop at shutdown until the end is stored although the code is still going
_LAG_S = 0.5
_KEYS_S = 1.0  # how late a changed key file is told of
_STOP_LOOK_S = 0.2  # how late a timeout may come
_STALE_TICK_S = 120.0
_NEWER_SCHEMA = (
    "a newer version has migrated the database (schema %s), so this hub fires and starts nothing any more: "
    "stop it, and start the newer version here"
)
_ROUND_S = 120.0  # two minute marks


class Hub:
    """Made and started on the hub's loop; `db` is for the engine alone."""

    def __init__(
        self, db: Database, vault: Vault, loader: Loader, settings: Settings, metrics: Metrics
    ) -> None:
        self._db = db
        self._vault = vault
        self._told_keys: tuple[str, ...] = ()
        self._tell_at = 0.0
        self._loader = loader
        self._metrics = metrics
        self._lease_s = settings.pool.lease_s
        self._beat_s = settings.heartbeat_seconds
        self.held = HeldRuns()
        self._pool = Pool(settings.pool.size, on_free=self._place_is_free)
        self._grace_s = settings.pool.shutdown_grace_s
        spool = Spool(settings.data_dir / "spool", self.held.worker_id)
        self._endings = Endings(db, self.held.worker_id, spool, self._on_stored)
        runner = Runner(
            db, vault, loader, self._pool, self.held, self._endings, metrics, settings.pool.timeout_s
        )
        self._dispatcher = Dispatcher(
            db, self._pool, runner, self.held, self._endings, metrics, self._lease_s
        )
        self._leases = Leases(db, self.held, self._dispatcher, metrics, self._lease_s)
        self._ticker = Ticker(db, metrics, on_queued=self._queued)
        self._retention = Retention(db, self.held.worker_id, settings.retention, metrics)
        self._listener: Listener | None = None
        self._loops: list[Every] = []
        self._looked_at = 0.0
        self._newer_schema: str | None = None

    async def start(self) -> None:
        """Tell that this hub is there, which a rotation of keys looks for; then tick, claim and beat."""
        await self._tell()
        self._looked_at = boottime()
        slowest = self._lease_s / 4
        often = min(_STOP_LOOK_S, self._lease_s / 24)
        self._loops = [
            Every("heartbeat", self._beat_s, self._leases.beat_once, slowest),
            Every("hub state", min(_KEYS_S, self._beat_s), self._tell_once, slowest),
            Every("schema", self._beat_s, self._look_at_schema_once, slowest),
            Every("reaper", self._beat_s, self._leases.reap_once, slowest),
            Every("live log", LIVE_S, self._leases.show_once, slowest),
            Every("stops", often, self._leases.stop_once, often),
            Every("loop lag", _LAG_S, self._measure_lag_once, _LAG_S),
            Every("spool", 0.5, self._endings.spool_once, 5.0),
            Every("spool replay", self._beat_s, self._endings.replay_once, slowest, at_once=True),
            Every("retention", LOOK_S, self._retention.pass_once, 10 * LOOK_S),
        ]
        if not self._db.is_pooled:
            self._loops.append(Every("listener", 1.0, self._listen_once, slowest, at_once=True))
            self._loops.append(Every("listener's connection", self._beat_s, self._ask_listener_once, slowest))
        self._ticker.start()
        self._dispatcher.wake()

    async def stop(self) -> None:
        """No new ticks and claims; going runs get the grace, then they are CANCELLED with reason shutdown.

        Returns within the grace and a few seconds, whatever plugins and the database do.
        """
        deadline = boottime() + self._grace_s
        log.info(
            "stopping: no new runs; %d that are going get %g s to end; a second signal ends at once",
            len(self.held),
            self._grace_s,
        )
        await asyncio.gather(self._ticker.stop(_ANSWER_S), self._dispatcher.stop(_ANSWER_S))
        await self._give_back()
        await self.held.drain(deadline - boottime())
        for run in list(self.held.values()):
            run.stop("shutdown", grace_s=_STOP_S)
        await self.held.drain(_STOP_S + KILLED_S + 0.5)
        await self._endings.stop(_ANSWER_S)
        await asyncio.gather(*(loop.stop() for loop in self._loops))
        if not len(self._endings):  # or the database has just not answered
            await self._say_goodbye()
        await self._pool.close()

    async def _say_goodbye(self) -> None:
        with contextlib.suppress(*UNAVAILABLE):
            async with asyncio.timeout(_ANSWER_S):
                # Code that has still not returned ends with the process, which is about to exit.
                await clear_leases(self._db, self.held.worker_id)
                await hubs.store_stopped(self._db, self.held.worker_id)
                if self._listener is not None:
                    await self._listener.close()

    async def _give_back(self) -> None:
        """Rule 19: what has not started goes back to the queue, now that the last claim has answered."""
        # Withdrawn before anything is awaited: what is given back must not begin meanwhile.
        for run_id in [run_id for run_id, run in self.held.items() if run.withdraw()]:
            self.held.pop(run_id)
        failpoints.passing("shutdown.before_release")
        with contextlib.suppress(*UNAVAILABLE):
            async with asyncio.timeout(_ANSWER_S):
                await self._leases.release_unheld()

    async def _tell_once(self) -> None:
        """Tell at each beat that this hub is there, and of other keys at once: a rotation waits for that."""
        self._vault.look()
        if boottime() >= self._tell_at or self._vault.key_ids != self._told_keys:
            await self._tell()

    async def _tell(self) -> None:
        begun, pool = boottime(), self._pool
        changed = await asyncio.to_thread(self._loader.changed)
        name = f"{socket.gethostname()}:{os.getpid()}"
        ticked_at, keys = self._ticker.ticked_at, self._vault.key_ids
        state = HubState(
            self.held.worker_id, name, __version__, pool.size, pool.taken, ticked_at, changed, keys
        )
        await hubs.store_seen(self._db, state)
        self._told_keys, self._tell_at = keys, begun + self._beat_s

    async def _look_at_schema_once(self) -> None:
        """Claims and ticks look for themselves, each time; this is what tells people why they stand still."""
        newer = await health.newer_schema(self._db)
        if newer is not None and newer != self._newer_schema:
            log.error("%s; what runs here goes on to its end", _NEWER_SCHEMA % newer)
        self._newer_schema = newer

    def readiness(self) -> dict[str, str | None]:
        """Each part by name: None when well, else what is wrong."""
        now = boottime()
        tick_age = now - self._ticker.last_tick
        beat_age = now - self._leases.last_beat
        spooled = self._endings.spooled
        overdue = sum(run.is_overdue for run in self.held.values())
        return {
            "tick": f"the last tick was {tick_age:.0f} s ago" if tick_age > _STALE_TICK_S else None,
            "heartbeat": f"the last beat was {beat_age:.0f} s ago" if beat_age > 2.5 * self._beat_s else None,
            "schema": _NEWER_SCHEMA % self._newer_schema if self._newer_schema else None,
            "spool": f"{spooled} ends of runs wait for the database" if spooled else None,
            "pool": "all places are held by runs that do not end" if overdue >= self._pool.size else None,
        }

    def standstill(self, now: float) -> str | None:
        """What has stopped going round at `now` (boot clock), or None.

        What waits for the database goes round: a new start would not help it, and end the runs that go on.
        """
        patience = _ROUND_S + self._lease_s  # statements are given up after a quarter of a lease
        for name, at in (("tick", self._ticker.tried_at), ("dispatcher", self._dispatcher.looked_at)):
            if now - at > patience:
                return f"the {name} has stood still for {now - at:.0f} s"
        return None

    def readings(self) -> list[Reading]:
        """The figures of this moment."""
        now, pool, connections = boottime(), self._pool, self._db.pool
        zombies = sum(run.is_overdue for run in self.held.values())
        return [
            Reading("places", "Runs that may go at the same time.", pool.size),
            Reading("places_taken", "Places that runs hold.", pool.taken),
            Reading("runs_past_their_end", "Runs that ended, and whose code still holds a place.", zombies),
            Reading("tick_age_seconds", "Since the last whole tick.", now - self._ticker.last_tick),
            Reading("heartbeat_age_seconds", "Since the last heartbeat.", now - self._leases.last_beat),
            Reading("unstored_ends", "Ends of runs that wait for the database.", len(self._endings)),
            Reading("spooled_ends", "Those of them in the spool file.", self._endings.spooled),
            Reading("database_connections", "Connections of the engine.", connections.get_size()),
            Reading("database_connections_max", "As many as they may become.", connections.get_max_size()),
            Reading("database_connections_idle", "Those of them not in use.", connections.get_idle_size()),
        ]

    async def _measure_lag_once(self) -> None:
        now = boottime()
        self._metrics.loop_lag.observe(max(0.0, now - self._looked_at - _LAG_S))
        self._looked_at = now

    @property
    def has_free_places(self) -> bool:
        """Whether more runs could begin here."""
        return self._pool.free > 0

    def _place_is_free(self) -> None:
        self._dispatcher.place_is_free()

    def _queued(self) -> None:
        self._dispatcher.look_from_the_front()

    def _on_stored(self, ending: Unstored) -> None:
        self._dispatcher.wake()  # what it was in the way of
        if isinstance(ending, LateReturn):
            return
        run = self.held.get(ending.id)
        if run is not None:
            self._metrics.results.count(run.claim.job_id, ending.status, ending.reason or "")
            run.stored = True
            self.held.let_go(run)
        if ending.retry_delay_s is not None:
            self._dispatcher.wake_in(ending.retry_delay_s + 0.01)

    async def _listen_once(self) -> None:
        if self._listener is None:
            self._listener = await self._db.listen(self._heard)
            self._dispatcher.look_from_the_front()

    async def _ask_listener_once(self) -> None:
        if self._listener is not None:
            await self._listener.ask(self._lease_s / 4)

    def _heard(self, payload: str) -> None:
        if payload == "":
            self._listener = None  # the connection ended: the listener makes a new one
        elif payload.startswith("cancel "):
            self._leases.cancel(int(payload.split()[1]))
        else:
            self._dispatcher.look_from_the_front()
