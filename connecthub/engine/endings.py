"""Stores the ends of runs: those that come together are written together, and none is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import asyncpg

from connecthub.storage import runs
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.runs import Ending

log = logging.getLogger(__name__)

_GATHER_S = 0.003
_BATCH = 500
_SLOWEST_S = 5.0
# What will be refused again however often it is tried.
_REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
)


class Endings:
    """The queue of ends that are not stored yet. `on_stored` is called with each id, and its retry delay."""

    def __init__(self, db: Database, worker_id: UUID, on_stored: Callable[[int, int | None], None]) -> None:
        self._db = db
        self._worker_id = worker_id
        self._on_stored = on_stored
        self._waiting: dict[int, Ending] = {}
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._storing(), name="endings")

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, ending: Ending) -> None:
        """Store `ending` soon."""
        self._waiting[ending.id] = ending
        self._empty.clear()
        self._wake.set()

    async def flush(self) -> None:
        """Return when everything put so far is stored."""
        await self._empty.wait()

    async def stop(self) -> None:
        """Stop storing; call `flush` before."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _storing(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            if failures:
                await asyncio.sleep(min(0.1 * 2**failures, _SLOWEST_S))
            elif len(self._waiting) < _BATCH:
                await asyncio.sleep(_GATHER_S)
            batch = list(self._waiting.values())[:_BATCH]
            try:
                await self._store(batch)
                failures = 0
            except UNAVAILABLE as error:
                failures += 1
                if failures == 1:
                    log.warning("%d ends of runs wait for the database: %s", len(batch), error)
            except Exception:
                failures += 1
                log.exception("%d ends of runs could not be stored and will be tried again", len(batch))

    async def _store(self, batch: list[Ending]) -> None:
        try:
            await runs.store_endings(self._db, self._worker_id, batch)
        except UNAVAILABLE:
            raise
        except (asyncpg.PostgresError, ValueError) as error:
            if len(batch) > 1:
                await self._store_one_by_one(batch)
                return
            if not isinstance(error, _REFUSED):
                raise
            await self._store_refused(batch[0], error)
        for ending in batch:
            self._waiting.pop(ending.id, None)
            self._on_stored(ending.id, ending.retry_delay_s)
        if not self._waiting:
            self._wake.clear()
            self._empty.set()

    async def _store_one_by_one(self, batch: list[Ending]) -> None:
        """One end that cannot be stored must not hold up the others."""
        failed: Exception | None = None
        for ending in batch:
            try:
                await self._store([ending])
            except Exception as error:
                failed = error
        if failed is not None:
            raise failed

    async def _store_refused(self, ending: Ending, error: Exception) -> None:
        """What PostgreSQL refuses must end visibly all the same, and not be tried for ever."""
        log.error("the end of run %d was refused by the database: %s", ending.id, type(error).__name__)
        plain = replace(
            ending,
            status="FAILURE",
            reason="exception",
            message=f"what the run returned could not be stored ({type(error).__name__})",
            traceback=None,
            run_log=None,
            result=None,
            progress=None,
        )
        await runs.store_endings(self._db, self._worker_id, [plain])
