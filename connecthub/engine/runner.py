"""One run, from its claim to its end, as a list of named steps."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
from typing import Any

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine import calls, outcome
from connecthub.engine.calls import Isolated
from connecthub.engine.child import LOAD_TIMEOUT_S, NotLoaded
from connecthub.engine.endings import Endings
from connecthub.engine.held import HeldRun, HeldRuns, LeaseStale, Withdrawn
from connecthub.engine.outcome import Outcome, Returned
from connecthub.engine.plugin_loop import Call
from connecthub.engine.pool import Pool
from connecthub.errors import HandlerError, SecretError
from connecthub.logs import about_run
from connecthub.metrics import Metrics
from connecthub.plugins import BaseJob
from connecthub.plugins.loader import Loader
from connecthub.security.vault import Vault
from connecthub.storage import runs
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.late import LateReturn
from connecthub.storage.runs import Definition, Ending

log = logging.getLogger(__name__)


class StoppedBefore(Exception):
    """The run was asked to stop while its handler was loading."""


class Runner:
    """Runs claimed runs to their stored ends."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        loader: Loader,
        pool: Pool,
        held: HeldRuns,
        endings: Endings,
        metrics: Metrics,
        timeout_s: float,
    ) -> None:
        self._db = db
        self._vault = vault
        self._loader = loader
        self._pool = pool
        self._held = held
        self._endings = endings
        self._metrics = metrics
        self._default_timeout_s = timeout_s

    async def execute(self, run: HeldRun, definition: Definition | None) -> None:
        """The life of one run; the pool's place was taken when it was claimed.

        `definition` is None where its revision is gone.
        """
        about_run.set((run.claim.id, run.claim.job_id))  # in the task of this run alone
        try:
            if definition is None:
                gone = HandlerError(
                    f"revision {run.claim.revision_id} of the Job is gone; save the Job again"
                )
                self._end(run, None, outcome.refuse("bad_handler", gone, run.masker), returned=True)
                return
            try:
                ended = await self._run(run, definition)
            except Withdrawn:
                run.stored = True
                why = "it is no longer this hub's" if run.refused else "it was given back to the queue"
                log.warning("run %d was not started: %s", run.claim.id, why)
                if run.refused:
                    why = json.dumps({"detail": "not started: its lease had run out"})
                    self._endings.put(LateReturn(run.claim.id, None, why))
                return
            except Exception as error:  # a fault of the hub must still end the run, visibly
                log.error("run %d failed inside the hub: %s", run.claim.id, type(error).__name__)
                ended = outcome.decide(Returned(error=error), None, run.masker, [])
            await self._finish(run, definition, ended)
        finally:
            run.returned = True
            self._held.let_go(run)
            self._pool.leave()

    async def _run(self, run: HeldRun, definition: Definition) -> Outcome:
        if run.stop_reason is not None:
            return Outcome("CANCELLED", run.stop_reason)
        try:
            cached = self._loader.cached(definition.handler_path)
            is_ready = cached is not None and cached.isolation != "process"
            plugin = cached if cached and is_ready else await self._load(run, definition)
            params, secrets = await self._open(run, definition)
        except StoppedBefore:
            return Outcome("CANCELLED", run.stop_reason)
        except HandlerError as error:
            return outcome.refuse("bad_handler", error, run.masker)
        except SecretError as error:
            return outcome.refuse("bad_secret", error, run.masker)
        run.code = self._loader.code(definition.handler_path)
        run.timeout_s = self._default_timeout_s if definition.timeout_s is None else definition.timeout_s
        run.stops_when_cut_off = definition.rerun_lost and definition.max_attempts > 1
        while True:
            await self._confirm_lease(run)
            if run.stop_reason is not None:
                return Outcome("CANCELLED", run.stop_reason)
            failpoints.passing("run.before_start")
            calls.begin(self._pool, run, plugin, params, secrets)
            returned = await run.ended
            if returned is None or not isinstance(returned.error, LeaseStale):
                break
            run.ended = asyncio.get_running_loop().create_future()
        if returned is not None and isinstance(returned.error, Withdrawn):
            raise Withdrawn
        if returned is not None and isinstance(returned.error, NotLoaded) and run.stop_reason is None:
            return outcome.refuse("bad_handler", returned.error, run.masker)
        failpoints.passing("run.after_return")
        self._measure(run)
        return outcome.decide(returned, run.stop_reason, run.masker, run.log.warnings)

    def _measure(self, run: HeldRun) -> None:
        self._metrics.starts.inc()
        if run.started_at is not None and run.started_at_boot is not None:
            self._metrics.start_delay.observe((run.started_at - run.claim.due_at).total_seconds())
            self._metrics.duration.observe(boottime() - run.started_at_boot)

    async def _load(self, run: HeldRun, definition: Definition) -> type[BaseJob] | Isolated:
        path = definition.handler_path
        isolated = Isolated(path, self._loader.packages, self._loader.path)

        def load() -> type[BaseJob] | Isolated:
            # Looked at first: a module that would harm the hub by its import is never imported here.
            if self._loader.is_isolated(path):
                return isolated
            job_class = self._loader.load(path)
            return isolated if job_class.isolation == "process" else job_class

        # Importing runs foreign code: off the hub's loop.
        loaded: asyncio.Future[Returned] = asyncio.get_running_loop().create_future()
        name = f"run {run.claim.id} ({run.claim.job_id})"
        self._pool.start_in_thread(Call(name, load, contextvars.copy_context(), loaded.set_result))
        stopping = asyncio.create_task(run.stopping.wait())
        either: set[asyncio.Future[Any]] = {loaded, stopping}
        await asyncio.wait(either, timeout=LOAD_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loaded.done():
            run.late = loaded  # it keeps its place until the import really returns
            if run.stop_reason is not None:
                raise StoppedBefore
            raise HandlerError(f"{path} did not finish loading within {LOAD_TIMEOUT_S:.0f} s")
        returned = loaded.result()
        if returned.error is not None:
            raise returned.error
        plugin: type[BaseJob] | Isolated = returned.value
        return plugin

    async def _open(self, run: HeldRun, definition: Definition) -> tuple[dict[str, Any], dict[str, Any]]:
        params: dict[str, Any] = json.loads(definition.public_cfg)
        if run.claim.params is not None:
            params |= json.loads(run.claim.params)
        secrets = await self._secrets(run.claim.revision_id, definition.secret_cfg)
        if secrets:
            run.masker.add(secrets)
        return params, secrets

    async def _secrets(self, revision_id: int, token: str | None) -> dict[str, Any]:
        if not token:
            return {}
        try:
            return self._vault.decrypt(token)
        except SecretError:
            # The keys may have been rotated, and the old one retired, since the definition was read.
            with contextlib.suppress(*UNAVAILABLE):
                found = (await runs.definitions(self._db, [revision_id])).get(revision_id)
                if found is not None and found.secret_cfg and found.secret_cfg != token:
                    return self._vault.decrypt(found.secret_cfg)
            raise

    async def _confirm_lease(self, run: HeldRun) -> None:
        """Rule 9: start only with lease left, or after a beat that finds the row still RUNNING."""
        while boottime() >= run.lease_until and not run.is_withdrawn:
            run.beaten.clear()
            await run.beaten.wait()
        if run.is_withdrawn:
            raise Withdrawn

    async def _finish(self, run: HeldRun, definition: Definition, ended: Outcome) -> None:
        if not run.is_overdue:
            run.log.close()
        self._end(run, definition, ended, returned=not run.is_overdue)
        if run.late is not None and run.is_overdue:
            log.warning("run %d (%s) is still running after %s", run.claim.id, run.claim.job_id, ended.reason)
            await self._await_late_return(run, run.late)

    def _end(self, run: HeldRun, definition: Definition | None, ended: Outcome, *, returned: bool) -> None:
        claim = run.claim
        run.settle()
        meta = {"code": run.code, "detail": ended.detail}
        delay = None
        if definition is not None:
            delay = outcome.retry_delay(
                ended, claim.attempt, definition.max_attempts, definition.retry_delays
            )
        self._endings.put(
            Ending(
                id=claim.id,
                status=ended.status,
                reason=ended.reason,
                message=ended.message,
                traceback=ended.traceback,
                run_log=outcome.clean(run.log.text()),
                result=ended.result,
                progress=run.progress,
                meta=json.dumps({name: value for name, value in meta.items() if value}),
                started_at=run.started_at,
                returned=returned,
                retry_delay_s=delay,
            )
        )

    async def _await_late_return(self, run: HeldRun, returning: asyncio.Future[Returned]) -> None:
        """It has ended, but the code goes on: it keeps its place and its lease until it returns."""
        returned = await returning
        run.log.close()
        late: dict[str, Any] = {"returned_late": "exception" if returned.error else "value"}
        if isinstance(returned.value, outcome.Result):
            late["late_result"] = returned.value.json
        self._endings.put(LateReturn(run.claim.id, outcome.clean(run.log.text()), json.dumps(late)))
