"""Stores the ends of runs: those that come together are written together, and none is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

import asyncpg

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine.looper import backoff, cancel
from connecthub.engine.spool import Spool, Unstored
from connecthub.storage import runs
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.late import LateReturn, store_late
from connecthub.storage.runs import STATEMENT_CHARS, Ending

log = logging.getLogger(__name__)

_GATHER_S = 0.003
_BATCH = 500
_SLOWEST_S = 5.0
_SPOOL_AFTER_S = 1.0  # an end that waits longer than this for the database goes to disk meanwhile
# What will be refused again however often it is tried.
_REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
)


class Endings:
    """Ends that are not stored yet, and what came after them. `on_stored` is called with each that is."""

    def __init__(
        self, db: Database, worker_id: UUID, spool: Spool, on_stored: Callable[[Unstored], None]
    ) -> None:
        self._db = db
        self._worker_id = worker_id
        self._spool = spool
        self._on_stored = on_stored
        self._waiting: dict[_Key, tuple[Unstored, float]] = {}  # since when, on the boot clock
        self._spooled: set[_Key] = set()  # those that wait and are in the spool file, which may hold more
        self._is_file = False
        self._spooling = asyncio.Lock()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._storing(), name="endings")

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def spooled(self) -> int:
        """How many of them are in the spool file."""
        return len(self._spooled)

    def put(self, ending: Unstored) -> None:
        """Store `ending` soon."""
        self._waiting[_key(ending)] = ending, boottime()
        self._empty.clear()
        self._wake.set()

    async def flush(self) -> None:
        """Return when everything put so far is stored."""
        await self._empty.wait()

    async def spool_once(self, after_s: float = _SPOOL_AFTER_S) -> None:
        """Put on disk what has waited longer than `after_s`; clear the disk once all of that is stored."""
        async with self._spooling:
            await self._spool_what_waits(after_s)

    async def _spool_what_waits(self, after_s: float) -> None:
        now = boottime()
        waiting = [
            ending
            for key, (ending, since) in list(self._waiting.items())
            if key not in self._spooled and now - since >= after_s
        ]
        if waiting:
            await asyncio.to_thread(self._spool.write, waiting)
            if not self._is_file:
                log.warning("%d ends of runs wait for the database; they are in the spool file", len(waiting))
            self._is_file = True
            self._spooled.update(self._waiting.keys() & map(_key, waiting))
        elif self._is_file and not self._spooled:
            await asyncio.to_thread(self._spool.clear)
            self._is_file = False

    async def replay_once(self) -> None:
        """Store what hubs that are no more have left on disk, each under its `worker_id` (rule 15)."""
        with self._spool.left_behind() as left:
            for worker_id, endings in left:
                batches, count = _batches(endings), 0
                # Not on the loop, which has leases to renew; and no more at a time than are stored together.
                while batch := await asyncio.to_thread(next, batches, None):
                    await _store(self._db, worker_id, batch, lambda stored: None)
                    count += len(batch)
                log.warning("%d ends of runs that another hub left in its spool file are stored", count)

    async def stop(self, seconds: float) -> None:
        """Store what waits within `seconds`; what is left then stays in the spool file for the next start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.flush()
        await cancel(self._task)
        try:
            await self.spool_once(after_s=0)
        except OSError as error:
            log.error("%d ends of runs could not be stored: %s", len(self._waiting), error)
        async with self._spooling:
            self._spool.close()

    async def _storing(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            if failures:
                await asyncio.sleep(backoff(0.1, failures, _SLOWEST_S))
            elif len(self._waiting) < _BATCH:
                await asyncio.sleep(_GATHER_S)
            batch = self._next_batch()
            try:
                failpoints.passing("end.before_store")
                await _store(self._db, self._worker_id, batch, self._forget)
                failures = 0
            except UNAVAILABLE as error:
                failures += 1
                if failures == 1:
                    log.warning("%d ends of runs wait for the database: %s", len(batch), error)
            except Exception:
                failures += 1
                log.exception("%d ends of runs could not be stored and will be tried again", len(batch))

    def _next_batch(self) -> list[Unstored]:
        ready = (ending for ending, _ in self._waiting.values() if not self._is_early(ending))
        return next(_batches(ready), [])

    def _is_early(self, ending: Unstored) -> bool:
        """What came after an end would find its row still RUNNING before that is stored."""
        return isinstance(ending, LateReturn) and (ending.id, Ending) in self._waiting

    def _forget(self, stored: list[Unstored]) -> None:
        for ending in stored:
            del self._waiting[_key(ending)]
            self._spooled.discard(_key(ending))
            self._on_stored(ending)
        if not self._waiting:
            self._wake.clear()
            self._empty.set()


Stored = Callable[[list[Unstored]], None]
_Key = tuple[int, type[Unstored]]


def _key(ending: Unstored) -> _Key:
    return ending.id, type(ending)


def _batches(endings: Iterable[Unstored]) -> Iterator[list[Unstored]]:
    """As many at a time as go into one statement."""
    batch: list[Unstored] = []
    chars = 0
    for ending in endings:
        batch.append(ending)
        chars += sum(len(text) for text in ending if isinstance(text, str))
        if len(batch) == _BATCH or chars > STATEMENT_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


async def _store(db: Database, worker_id: UUID, batch: list[Unstored], stored: Stored) -> None:
    """Store `batch`, and call `stored` with what is; harmless when repeated. Raises what it failed with."""
    ends = [one for one in batch if isinstance(one, Ending)]
    late = [one for one in batch if isinstance(one, LateReturn)]
    try:
        if ends:
            await runs.store_endings(db, worker_id, ends)
        if late:
            await store_late(db, worker_id, late)
        failpoints.passing("end.after_store")
    except UNAVAILABLE:
        raise
    except (asyncpg.PostgresError, ValueError) as error:
        if len(batch) > 1:
            await _store_one_by_one(db, worker_id, batch, stored)
            return
        if not isinstance(error, _REFUSED):
            raise
        await _store_refused(db, worker_id, batch[0], error)
    stored(batch)


async def _store_one_by_one(db: Database, worker_id: UUID, batch: list[Unstored], stored: Stored) -> None:
    """One end that cannot be stored must not hold up the others."""
    failed: Exception | None = None
    for ending in batch:
        try:
            await _store(db, worker_id, [ending], stored)
        except Exception as error:
            failed = error
    if failed is not None:
        raise failed


async def _store_refused(db: Database, worker_id: UUID, ending: Unstored, error: Exception) -> None:
    """What PostgreSQL refuses must end visibly all the same, and not be tried for ever."""
    log.error("the end of run %d was refused by the database: %s", ending.id, type(error).__name__)
    if isinstance(ending, LateReturn):
        await store_late(db, worker_id, [ending._replace(run_log=None, meta="{}")])
        return
    plain = ending._replace(
        status="FAILURE",
        reason="exception",
        message=f"what the run returned could not be stored ({type(error).__name__})",
        traceback=None,
        run_log=None,
        result=None,
        progress=None,
    )
    await runs.store_endings(db, worker_id, [plain])
