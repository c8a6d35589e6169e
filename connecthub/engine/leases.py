"""The heartbeat, the reaper, and the store of what going runs show."""

from __future__ import annotations

import json
import logging

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine.dispatcher import Dispatcher
from connecthub.engine.held import HeldRun, HeldRuns
from connecthub.engine.outcome import clean
from connecthub.metrics import Metrics
from connecthub.storage import runs
from connecthub.storage.database import Database
from connecthub.storage.live import Live, store_live
from connecthub.storage.runs import STATEMENT_CHARS

log = logging.getLogger(__name__)

LIVE_S = 2.0


class Leases:
    """Keeps what this hub holds believed alive, and finds what nobody holds any more.

    `last_beat` (boot clock): when the last beat was sent that was answered; leases end a lease after it.
    """

    def __init__(
        self, db: Database, held: HeldRuns, dispatcher: Dispatcher, metrics: Metrics, lease_s: float
    ) -> None:
        self._db = db
        self._held = held
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._lease_s = lease_s
        self._connected_since: float | None = None
        self.last_beat = boottime()

    async def beat_once(self) -> None:
        """Renew every lease; find lost claims, cancels, and runs that are RUNNING no longer."""
        failpoints.passing("beat.before")
        self._look_at_the_clock()
        sent = boottime()
        held = dict(self._held)
        claims_begun, quiet = self._dispatcher.claims_begun, self._dispatcher.is_quiet
        renewed = [run_id for run_id, run in held.items() if sent < run.renew_until]
        try:
            beat = await runs.beat(self._db, self._held.worker_id, self._lease_s, renewed, held)
        except BaseException:
            self._connected_since = None
            raise
        self.last_beat = sent
        if self._connected_since is None:
            self._connected_since = boottime()
        for run_id in renewed:
            run = held[run_id]
            if run_id in beat.running:
                run.lease_until = sent + self._lease_s
            elif run.withdraw():
                run.refused = True
            if run.beaten is not None:
                run.beaten.set()
        self._cancel(beat.cancelled)
        if self._dispatcher.is_stopping:
            if self._dispatcher.is_quiet:
                await self.release_unheld()
            return
        # Rule 8; rows of a claim that is only on its way are not lost.
        if beat.lost_claims and quiet and claims_begun == self._dispatcher.claims_begun:
            log.warning("%d claims whose answer was lost are taken up", len(beat.lost_claims))
            self._dispatcher.adopt(beat.lost_claims, sent + self._lease_s)

    async def release_unheld(self) -> None:
        """Rule 19, only at shutdown: what this hub has claimed and not begun goes back to the queue."""
        await runs.release(self._db, self._held.worker_id, self._held)

    async def stop_once(self) -> None:
        """Stop what its timeout is over for.

        Rule 12: also `rerun_lost` runs before their lease ends; then another hub may run them again.
        """
        margin = self._lease_s / 6
        for run in list(self._held.values()):
            if run.is_late:
                run.stop("timeout")
            elif run.stops_when_cut_off and boottime() > run.lease_until - margin:
                run.stop("lost", grace_s=margin / 2)

    async def reap_once(self) -> None:
        """Rule 11: only after one unbroken lease of connection, the hub's start included."""
        self._look_at_the_clock()
        if self._connected_since is None or boottime() - self._connected_since < self._lease_s:
            return
        async with self._db.transaction() as connection:
            lost = await runs.reap(connection)
        if lost:
            self._metrics.lost.inc(len(lost))
            log.warning("%d runs are LOST, their hub stopped answering: %s", len(lost), lost[:20])
            self._dispatcher.wake()

    def _look_at_the_clock(self) -> None:
        """A hub that stood still for a lease (its machine slept) was not connected either.

        What it holds looks lost then, and so does what others hold that stood still with it.
        """
        if boottime() - self.last_beat >= self._lease_s:
            self._connected_since = None

    async def show_once(self) -> None:
        """Store what going runs have logged and how far they are, a part of them in each statement."""
        held = list(self._held.values())
        if not held:
            return
        waiting = [run for run in held if run.started_at is not None and run.changes != run.stored_changes]
        while True:
            live: list[tuple[HeldRun, int, Live]] = []
            chars = 0
            while waiting and chars < STATEMENT_CHARS:
                run = waiting.pop()
                if not run.has_ended:
                    live.append((run, run.changes, _live(run)))
                    chars += len(live[-1][2].run_log)
            shown = [entry[2] for entry in live]
            self._cancel(await store_live(self._db, self._held.worker_id, shown, self._held))
            for run, changes, _ in live:
                run.stored_changes = changes
            if not waiting:
                return

    def cancel(self, run_id: int) -> None:
        """A person asked this run to stop; it may be another hub's."""
        self._cancel({run_id})

    def _cancel(self, run_ids: set[int]) -> None:
        for run_id in run_ids:
            run = self._held.get(run_id)
            if run is not None:
                run.stop("cancelled")


def _live(run: HeldRun) -> Live:
    meta = json.dumps({"code": run.code} if run.code else {})
    return Live(run.claim.id, clean(run.log.text()), run.progress, run.started_at, meta)
