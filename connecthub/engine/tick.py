"""Once a minute: turns due Jobs into QUEUED runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine.looper import backoff
from connecthub.engine.misfire import plan
from connecthub.metrics import Metrics
from connecthub.storage import schedule
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.schedule import Look

log = logging.getLogger(__name__)

_FIRST_BATCH = 100  # its runs begin while the others are planned
_BATCH = 1000
_AGAIN_S = (0.05, 0.2, *[1.0] * 20)  # after so long Jobs that another session holds are looked at again
_EARLY = timedelta(milliseconds=2)  # asyncio's timers come as late as that; a loop that goes round does not
_STEP_S = 0.5
_SLOWEST_S = 10.0
_LOOK_S = 5


class DatabaseMinute(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires right before each minute mark of the database's clock, `offset` ahead of this machine's."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def learn(self, asked: datetime, moment: datetime, answered: datetime) -> None:
        """The database's clock was at `moment` between these two of this machine; what is known better stays.

        The answer may have come late: it waited for a lock, or the hub's loop for its turn.
        """
        self.offset = min(max(self.offset, moment - answered), moment - asked)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Right before the next minute mark; once one was aimed at, before the one after it."""
        there = now.astimezone(UTC) + self.offset + (_EARLY if previous else timedelta(0))
        mark = there.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return mark - self.offset - _EARLY

    async def begins(self) -> None:
        """Return at the minute mark, where it is that close."""
        there = datetime.now(UTC) + self.offset
        while (there + _EARLY).minute != there.minute:
            await asyncio.sleep(0)
            there = datetime.now(UTC) + self.offset


class Ticker:
    """Ticks at the hub's start and at each minute mark; `on_queued` is called when runs were inserted.

    `last_tick` (boot clock) and `ticked_at` (the database's) tell of the last whole tick, `tried_at` (boot
    clock) of the last attempt at one or step of one, which an outage of the database does not hold up.
    """

    def __init__(self, db: Database, metrics: Metrics, on_queued: Callable[[], None]) -> None:
        self._db = db
        self._metrics = metrics
        self._on_queued = on_queued
        self._minute = DatabaseMinute()
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._ticking = asyncio.Lock()
        self._stopping = False
        self._wall_ahead = time.time() - boottime()
        self.last_tick = self.tried_at = boottime()
        self.ticked_at: datetime | None = None

    def start(self) -> None:
        """Tick now, and from now on each minute."""
        options: dict[str, Any] = {"misfire_grace_time": None, "coalesce": True, "max_instances": 2}
        self._scheduler.add_job(self._tick_safely, self._minute, id="tick", **options)
        self._scheduler.add_job(self._tick_safely, id="first", **options)
        self._scheduler.start()
        self._clock_watch = asyncio.create_task(self._watching(), name="clock watch")

    async def stop(self, seconds: float) -> None:
        """No tick begins after this; one that is going gets `seconds` to end."""
        self._stopping = True
        self._clock_watch.cancel()
        self._scheduler.pause()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._ticking:
                pass
        self._scheduler.shutdown(wait=False)  # cancels what is still going

    async def _watching(self) -> None:
        """APScheduler counts on the wall clock: after a step it would wait for an hour that is past."""
        while True:
            await asyncio.sleep(_LOOK_S)
            ahead = time.time() - boottime()
            if abs(ahead - self._wall_ahead) > _STEP_S:
                log.warning("the clock of this machine was stepped by %.1f s", ahead - self._wall_ahead)
                self._minute.offset -= timedelta(seconds=ahead - self._wall_ahead)
                self._wall_ahead = ahead
                self._aim()
                await self._tick_safely()

    def _aim(self) -> None:
        """Wait for the next minute mark anew."""
        self._scheduler.reschedule_job("tick", trigger=self._minute)

    async def _tick_safely(self) -> None:
        failures = 0
        while not self._stopping:
            self.tried_at = boottime()
            try:
                async with self._ticking:
                    before = self._minute.offset
                    await self.tick_once()
                if abs(self._minute.offset - before) > timedelta(seconds=_STEP_S):
                    self._aim()  # the clocks' difference was not known before, or the server is another one
                return
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
                return  # APScheduler would tell of an error
            except UNAVAILABLE as error:
                failures += 1
                if failures == 1:
                    log.warning("the tick waits for the database: %s", error)
            except Exception:
                failures += 1
                log.exception("the tick failed and will be tried again")
            if failures > 6:
                return  # the next minute's tick finds the same Jobs due
            await asyncio.sleep(backoff(0.5, failures, _SLOWEST_S))

    async def tick_once(self) -> None:
        """Turn everything that is due by the database's clock into runs."""
        await self._minute.begins()
        early = 0.0
        while early < 1:  # it may come just before the mark, as far as the database's clock is not known
            await asyncio.sleep(early)
            asked = boottime()
            moment, is_due = await self._look()
            early = 60 - moment.second - moment.microsecond / 1e6
        if self._stopping:
            return
        if is_due:
            await self._fire(moment)
        self.last_tick, self.ticked_at = boottime(), moment
        begun = moment.second + moment.microsecond / 1e6
        self._metrics.tick.observe(begun + self.last_tick - asked)

    async def _look(self) -> Look:
        async with self._db.connection() as connection:
            sent = datetime.now(UTC)
            seen = await schedule.look(connection)
        self._minute.learn(sent, seen.moment, datetime.now(UTC))
        return seen

    async def _fire(self, moment: datetime) -> None:
        """Plan all that is due, and again what another session holds: another hub's tick, or a save."""
        most = _FIRST_BATCH
        for pause in _AGAIN_S:
            while await self._batch(moment, most) == most:
                most = _BATCH
            async with self._db.connection() as connection:
                if not (await schedule.look(connection, moment)).is_due:
                    return
            await asyncio.sleep(pause)

    async def _batch(self, moment: datetime, most: int) -> int:
        self.tried_at = boottime()
        async with self._db.transaction() as connection:
            due = await schedule.due_jobs(connection, moment, most)
            if not due:
                return 0
            plans = [plan(jobs, moment) for jobs in due]
            fires = [fire for fires, _ in plans for fire in fires]
            inserted = await schedule.store_tick(connection, fires, [advance for _, advance in plans])
            failpoints.passing("tick.before_commit")
        failpoints.passing("tick.after_commit")
        planned: Counter[tuple[str, str]] = Counter()
        for fire in fires:
            planned[fire.status, fire.reason or ""] += len(fire.job_ids)
        for (status, reason), count in planned.items():
            self._metrics.fires.labels(status, reason).inc(count)
        if inserted != planned.total():
            log.error(
                "%d fire times had a run already; the unique index kept them single",
                planned.total() - inserted,
            )
        if fires:
            self._on_queued()
        return sum(len(jobs.ids) for jobs in due)
