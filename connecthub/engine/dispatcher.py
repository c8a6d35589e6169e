"""Claims as many runs as the pool has places, and starts them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict

from connecthub.clock import boottime
from connecthub.engine.endings import Endings
from connecthub.engine.held import HeldRun, HeldRuns
from connecthub.engine.pool import Pool
from connecthub.engine.runner import Runner
from connecthub.storage import runs
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.runs import Claim, Definition

log = logging.getLogger(__name__)

POLL_S = 2.0  # suffices where no notice comes
_SLOWEST_S = 10.0
_MOST_UNSTORED = 2000  # ends that wait for the database; above that nothing more is claimed
_DEFINITIONS = 20_000


class Dispatcher:
    """Wakes on a notice, on a freed place, when a delayed attempt is due, and every POLL_S."""

    def __init__(
        self, db: Database, pool: Pool, runner: Runner, held: HeldRuns, endings: Endings, lease_s: float
    ) -> None:
        self._db = db
        self._pool = pool
        self._runner = runner
        self._held = held
        self._endings = endings
        self._lease_s = lease_s
        self._wake = asyncio.Event()
        self._definitions: OrderedDict[int, Definition] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.claims_begun = 0
        self.claims_answered = 0
        self._task = asyncio.create_task(self._dispatching(), name="dispatcher")

    @property
    def is_quiet(self) -> bool:
        """Whether no claim is on its way."""
        return self.claims_begun == self.claims_answered

    def wake(self) -> None:
        """Something may be there to claim."""
        self._wake.set()

    def wake_in(self, seconds: float) -> None:
        """A delayed attempt is due then."""
        asyncio.get_running_loop().call_later(seconds, self.wake)

    async def _dispatching(self) -> None:
        failures = 0
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S if not failures else min(2.0**failures, _SLOWEST_S)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                while await self.claim_once() and not self._stopping:
                    pass
                failures = 0
            except UNAVAILABLE as error:
                failures += 1
                if failures == 1:
                    log.warning("claiming waits for the database: %s", error)
            except Exception:
                failures += 1
                log.exception("claiming failed and will be tried again")

    async def claim_once(self) -> int:
        """Claim what fits into the pool now, and start it; how many."""
        places = self._pool.free
        if places <= 0 or len(self._endings) > _MOST_UNSTORED:
            return 0
        # Counted from before the claim is sent: an answer that took long has used up its lease.
        lease_until = boottime() + self._lease_s
        self.claims_begun += 1
        try:
            claims = await runs.claim(self._db, self._held.worker_id, self._lease_s, places)
            await self.adopt(claims, lease_until)
        finally:
            self.claims_answered += 1
        return len(claims)

    async def adopt(self, claims: list[Claim], lease_until: float) -> None:
        """Hold claimed runs, and start them."""
        held = []
        for claim in claims:
            if claim.id not in self._held:
                run = HeldRun(claim, lease_until)
                self._held[claim.id] = run
                self._pool.take()
                held.append(run)
        definitions = await self._definitions_of({run.claim.revision_id for run in held})
        for run in held:
            definition = definitions.get(run.claim.revision_id)
            task = asyncio.create_task(self._runner.execute(run, definition), name=f"run {run.claim.id}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _definitions_of(self, revision_ids: set[int]) -> dict[int, Definition]:
        known = {number: self._definitions[number] for number in revision_ids if number in self._definitions}
        missing = list(revision_ids - known.keys())
        while missing:
            try:
                learned = await runs.definitions(self._db, missing)
                break
            except Exception as error:  # claimed runs must not be dropped; their leases are renewed meanwhile
                log.warning("definitions of %d claimed runs cannot be read yet: %s", len(missing), error)
                await asyncio.sleep(1)
        if missing:
            known |= learned
            self._definitions.update(learned)
        while len(self._definitions) > _DEFINITIONS:
            self._definitions.popitem(last=False)
        return known

    async def stop(self) -> None:
        """Claim no more; returns after the last claim has answered."""
        self._stopping = True
        self._wake.set()
        await self._task
