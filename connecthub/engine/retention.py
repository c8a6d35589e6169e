"""Deletes what is no longer kept: all the time a little, so that a tick, a claim and a page never notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from connecthub.clock import boottime
from connecthub.config_sections import RetentionSettings
from connecthub.metrics import Metrics
from connecthub.storage import retention
from connecthub.storage.database import Database
from connecthub.storage.retention import Kept, Step

log = logging.getLogger(__name__)

LOOK_S = 30.0
_EVERY_S = 3600.0  # from the end of a pass to the next, over all hubs
_REST_S = 0.01


class Retention:
    """The passes of one hub; of several hubs one at a time is at it."""

    def __init__(self, db: Database, worker_id: UUID, settings: RetentionSettings, metrics: Metrics) -> None:
        self._db = db
        self._worker_id = worker_id
        self._kept = Kept(settings.days, settings.failure_days or None, settings.keep_last)
        self._metrics = metrics

    async def pass_once(self) -> None:
        """A whole pass, where one is due and the settings want any."""
        if not self._kept.days or not await retention.begin(self._db, self._worker_id, _EVERY_S):
            return
        begun = boottime()
        runs = await self._walk("runs", partial(retention.delete_runs, beyond={}))
        revisions = await self._walk("revisions", retention.delete_revisions)
        await self._walk("hubs", retention.delete_hubs)
        await retention.end(self._db, self._worker_id)
        if runs or revisions:
            took = boottime() - begun
            log.info("retention: %d runs and %d revisions went, in %.0f s", runs, revisions, took)

    async def _walk(
        self, table: str, step_once: Callable[[Database, UUID, Kept, int], Awaitable[Step]]
    ) -> int:
        """Step through a table from its oldest row; how many rows went."""
        gone, after = 0, 0
        counter = self._metrics.retention.labels(table)
        while True:
            begun = boottime()
            step = await step_once(self._db, self._worker_id, self._kept, after)
            gone += step.gone
            counter.inc(step.gone)
            if step.reached is None:
                return gone
            after = step.reached
            # At most half of the time: the other half is for whoever waits for the database.
            await asyncio.sleep(max(boottime() - begun, _REST_S))
