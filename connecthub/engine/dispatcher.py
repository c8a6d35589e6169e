"""Claims as many runs as the pool has places, and starts them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine.endings import Endings
from connecthub.engine.held import HeldRun, HeldRuns
from connecthub.engine.looper import backoff, cancel
from connecthub.engine.pool import Pool
from connecthub.engine.runner import Runner
from connecthub.metrics import Metrics
from connecthub.storage import revisions, runs
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.revisions import Definition
from connecthub.storage.runs import Claim

log = logging.getLogger(__name__)

POLL_S = 2.0  # suffices where no notice comes
_SLOWEST_S = 10.0
_MOST_UNSTORED = 2000  # ends that wait for the database; above that nothing more is claimed
_DEFINITIONS = 50_000  # of them kept in memory: with more Jobs than that each minute reads all of them anew
_WHOLE_REST = 20  # a look through the whole queue is followed by so many times of what it took


class Dispatcher:
    """Wakes on a notice, on a place for more, when a delayed attempt is due, and every POLL_S.

    `looked_at` (boot clock): when it last looked for something to claim, with or without an answer.
    """

    def __init__(
        self,
        db: Database,
        pool: Pool,
        runner: Runner,
        held: HeldRuns,
        endings: Endings,
        metrics: Metrics,
        lease_s: float,
    ) -> None:
        self._db = db
        self._pool = pool
        self._runner = runner
        self._held = held
        self._endings = endings
        self._metrics = metrics
        self._lease_s = lease_s
        self._wake = asyncio.Event()
        self._definitions: OrderedDict[int, Definition] = OrderedDict()
        self._asking: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.looked_at = boottime()
        self._newest = 0  # the highest id claimed so far
        self._above = 0  # it, at the last time that a claim found no more
        self._last: Claim | None = None  # where the next claim goes on, if it found as many as it could
        self._whole_at = 0.0
        self._looks_again = False
        self._is_news = False
        self._is_full = False  # the last time there was no place
        self.claims_begun = 0
        self.claims_answered = 0
        self._task = asyncio.create_task(self._dispatching(), name="dispatcher")

    @property
    def is_quiet(self) -> bool:
        """Whether no claim is on its way."""
        return self.claims_begun == self.claims_answered

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more may begin here."""
        return self._stopping

    def wake(self) -> None:
        """Something may be there to claim."""
        self._wake.set()

    def place_is_free(self) -> None:
        """There is a place for what the last claim left in the queue, if it left anything."""
        if self._is_full or self._last is not None:
            self.wake()

    def look_from_the_front(self) -> None:
        """Something was queued: a person's run, or one of a higher priority, comes before what waits."""
        self._is_news = True
        self.wake()

    def wake_in(self, seconds: float) -> None:
        """A delayed attempt is due then."""
        asyncio.get_running_loop().call_later(seconds, self.wake)

    async def _dispatching(self) -> None:
        failures = 0
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff(1.0, failures, _SLOWEST_S) if failures else POLL_S):
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

    async def claim_once(self) -> bool:
        """Claim what fits into the pool now, and start it; whether there may be more.

        At most half of the pool in one go: while that half begins, the database looks for the other. What has
        left the queue stays in its index until it is cleared away, and where a transaction elsewhere keeps it
        there a look through the whole queue grows slow. So most go on behind the run that the last one ended
        with, or look only above what was claimed before. What became ready below (an attempt whose delay is
        over, what another run was in the way of) is found by the next whole look; what comes before the
        others (a higher priority, a person's run) by the look that follows its notice.
        """
        begun = self.looked_at = boottime()
        is_whole = begun >= self._whole_at
        behind = None if is_whole or self._is_news else self._last
        is_news, self._is_news = self._is_news, False
        places, claims = await self._claim(0 if is_whole else self._above, behind)
        self._is_full = not places
        if not places:
            self._is_news |= is_news
            return False
        if is_whole:
            took = boottime() - begun
            self._whole_at = begun + took + min(_WHOLE_REST * took, _SLOWEST_S)
        if len(claims) == places:
            self._last = claims[-1]
            return True
        self._last = None
        if behind is not None:  # there is nothing more like it; what else there is comes next
            return True
        self._above = self._newest
        if not is_whole:
            self._look_again()
        return bool(claims)  # another hub may have had the rest under its lock

    async def _claim(self, above: int, behind: Claim | None) -> tuple[int, list[Claim]]:
        """How many runs there were places for, and those that were claimed and have begun."""
        places = min(self._pool.free, (self._pool.size + 1) // 2)
        if places <= 0 or len(self._endings) > _MOST_UNSTORED:
            return 0, []
        # Counted from before the claim is sent: an answer that took long has used up its lease.
        begun = boottime()
        self.claims_begun += 1
        try:
            claims = await runs.claim(self._db, self._held.worker_id, self._lease_s, places, above, behind)
            self._metrics.claim.observe(boottime() - begun)
            if claims:
                failpoints.passing("claim.after_answer")
            self.adopt(claims, begun + self._lease_s)
        finally:
            self.claims_answered += 1
        self._newest = max([self._newest, *(claim.id for claim in claims)])
        return places, claims

    def _look_again(self) -> None:
        """Look through the whole queue as soon as that may be."""

        def look() -> None:
            self._looks_again = False
            self.wake()

        if not self._looks_again:
            self._looks_again = True
            asyncio.get_running_loop().call_later(self._whole_at - boottime(), look)

    def adopt(self, claims: list[Claim], lease_until: float) -> None:
        """Hold claimed runs, and start them."""
        held = [self._runner.hold(claim, lease_until) for claim in claims if claim.id not in self._held]
        for run in held:
            self._held[run.claim.id] = run
            self._pool.take()
            run.definition = self._definitions.get(run.claim.revision_id)
        unknown = list({run.claim.revision_id for run in held if run.definition is None})
        if unknown:
            task = asyncio.create_task(self._begin_when_known(held, unknown), name="definitions")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        else:  # once the next claim is sent: the database looks for more while these begin
            asyncio.get_running_loop().call_soon(self._begin, held)

    async def _begin_when_known(self, held: list[HeldRun], revision_ids: list[int]) -> None:
        """Claimed runs must not be dropped while the database is away; their leases are renewed meanwhile."""
        while not self._stopping:
            try:
                found = await revisions.definitions(self._db, revision_ids)
                break
            except Exception as error:
                log.warning("definitions of %d claimed runs cannot be read yet: %s", len(held), error)
                await asyncio.sleep(1)
        else:
            return  # they have not begun, and go back to the queue
        self._definitions.update(found)
        for run in held:
            run.definition = run.definition or found.get(run.claim.revision_id)
        self._begin(held)

    def _begin(self, held: list[HeldRun]) -> None:
        for run in held:
            self._runner.begin(run)
        while len(self._definitions) > _DEFINITIONS:
            self._definitions.popitem(last=False)

    async def stop(self, seconds: float) -> None:
        """Claim no more; returns after the last claim has answered, or was given up after `seconds`."""
        self._stopping = True
        self._wake.set()
        await asyncio.wait({self._task}, timeout=seconds)
        await cancel(self._task)
