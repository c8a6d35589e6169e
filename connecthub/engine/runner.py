"""One run, from its claim to its end, as a list of named steps."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine import calls, capture, outcome, traces
from connecthub.engine.calls import Isolated
from connecthub.engine.child import LOAD_TIMEOUT_S, NotLoaded
from connecthub.engine.endings import Endings
from connecthub.engine.held import HeldRun, HeldRuns, LeaseStale, Withdrawn
from connecthub.engine.outcome import Outcome, Returned
from connecthub.engine.plugin_loop import Call
from connecthub.engine.pool import Pool
from connecthub.errors import HandlerError, SecretError
from connecthub.metrics import Metrics
from connecthub.plugins import BaseJob
from connecthub.plugins.loader import Loader
from connecthub.security.vault import Vault
from connecthub.storage import revisions
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.late import LateReturn
from connecthub.storage.revisions import Definition
from connecthub.storage.runs import Claim, Ending

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
        self._waiting: set[asyncio.Task[None]] = set()  # for what their runs need before they begin

    def hold(self, claim: Claim, lease_until: float) -> HeldRun:
        """A claimed run as it is held."""
        return HeldRun(claim, lease_until, self._returned, self._returned_late)

    def begin(self, run: HeldRun) -> None:
        """Take a run to its plugin; its end, and the free place, follow by themselves.

        The pool's place was taken when it was claimed.
        """
        run.context.run(self._begin, run)

    def _begin(self, run: HeldRun) -> None:
        try:
            if run.definition is None:
                gone = f"revision {run.claim.revision_id} of the Job is gone; save the Job again"
                raise HandlerError(gone)
            at_hand = self._at_hand(run, run.definition)
            if at_hand is None:
                self._spawn(self._begin_later(run, run.definition))
            else:
                self._call(run, run.definition, *at_hand)
        except Exception as error:
            self._fail(run, error)

    def _at_hand(self, run: HeldRun, definition: Definition) -> tuple[type[BaseJob], dict[str, Any]] | None:
        """Its class and its secrets, where nothing has to be waited for."""
        plugin = self._loader.cached(definition.handler_path)
        if plugin is None or plugin.isolation == "process" or boottime() >= run.lease_until:
            return None
        try:
            return plugin, self._vault.decrypt(definition.secret_cfg) if definition.secret_cfg else {}
        except SecretError:
            return None

    async def _begin_later(self, run: HeldRun, definition: Definition) -> None:
        try:
            if run.stop_reason is not None:
                raise StoppedBefore
            plugin = await self._load(run, definition)
            secrets = await self._secrets(run.claim.revision_id, definition.secret_cfg)
            await self._confirm_lease(run)
            self._call(run, definition, plugin, secrets)
        except Exception as error:
            self._fail(run, error)

    def _call(
        self,
        run: HeldRun,
        definition: Definition,
        plugin: type[BaseJob] | Isolated,
        secrets: dict[str, Any],
    ) -> None:
        if run.is_withdrawn:
            raise Withdrawn
        if run.stop_reason is not None:
            raise StoppedBefore
        params: dict[str, Any] = json.loads(definition.public_cfg)
        if run.claim.params is not None:
            params |= json.loads(run.claim.params)
        if secrets:
            run.masker.add(secrets)
        run.code = self._loader.code(definition.handler_path)
        run.timeout_s = self._default_timeout_s if definition.timeout_s is None else definition.timeout_s
        run.stops_when_cut_off = definition.rerun_lost and definition.max_attempts > 1
        failpoints.passing("run.before_start")
        calls.begin(self._pool, run, plugin, params, secrets)

    def _fail(self, run: HeldRun, error: Exception) -> None:
        """It ends here, and its plugin was not called, or its end could not be told."""
        if isinstance(error, Withdrawn):
            self._withdraw(run)
        elif isinstance(error, StoppedBefore):
            self._finish(run, Outcome("CANCELLED", run.stop_reason))
        elif isinstance(error, HandlerError):
            self._finish(run, outcome.refuse("bad_handler", error, run.masker))
        elif isinstance(error, SecretError):
            self._finish(run, outcome.refuse("bad_secret", error, run.masker))
        else:  # a fault of the hub must still end the run, visibly
            kind, where = type(error).__name__, traces.where(error)
            log.error("run %d failed inside the hub: %s at %s", run.claim.id, kind, where)
            self._finish(run, outcome.decide(Returned(error=error), None, run.masker, []))

    def _withdraw(self, run: HeldRun) -> None:
        run.stored = True
        why = "it is no longer this hub's" if run.refused else "it was given back to the queue"
        log.warning("run %d was not started: %s", run.claim.id, why)
        if run.refused:
            why = json.dumps({"detail": "not started: its lease had run out"})
            self._endings.put(LateReturn(run.claim.id, None, why))
        self._leave(run)

    def _returned(self, run: HeldRun, returned: Returned | None) -> None:
        """The plugin's code has returned, or (None) goes on although the run was asked to end."""
        error = returned.error if returned is not None else None
        if isinstance(error, LeaseStale) and run.definition is not None:
            run.call, run.stops_when_cut_off = None, False  # nothing of it goes that could be stopped
            self._spawn(self._begin_later(run, run.definition))
        elif isinstance(error, Withdrawn) or (isinstance(error, NotLoaded) and run.stop_reason is None):
            self._fail(run, error)
        else:
            try:
                failpoints.passing("run.after_return")
                self._measure(run)
                ended = outcome.decide(returned, run.stop_reason, run.masker, run.log.warnings)
            except Exception as fault:
                self._fail(run, fault)
            else:
                self._finish(run, ended)

    def _returned_late(self, run: HeldRun, returned: Returned) -> None:
        """It has ended, but its code went on: it kept its place and its lease until now."""
        run.log.close()
        late: dict[str, Any] = {"returned_late": "exception" if returned.error else "value"}
        if isinstance(returned.value, outcome.Result):
            late["late_result"] = returned.value.json
        self._endings.put(LateReturn(run.claim.id, outcome.clean(run.log.text()), json.dumps(late)))
        self._leave(run)

    def _finish(self, run: HeldRun, ended: Outcome) -> None:
        """Its end is decided and will be stored; where its code is over, its place is free."""
        if run.is_overdue:
            self._end(run, ended)
            log.warning("run %d (%s) is still running after %s", run.claim.id, run.claim.job_id, ended.reason)
        else:
            run.log.close()
            self._end(run, ended)
            self._leave(run)

    def _leave(self, run: HeldRun) -> None:
        run.returned = True
        self._held.let_go(run)
        self._pool.leave()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _measure(self, run: HeldRun) -> None:
        self._metrics.starts.inc()
        if run.started_at is not None and run.started_at_boot is not None:
            self._metrics.start_delay.observe((run.started_at - run.claim.due_at).total_seconds())
            self._metrics.duration.observe(boottime() - run.started_at_boot)

    def _end(self, run: HeldRun, ended: Outcome) -> None:
        run.settle()
        self._endings.put(
            Ending(
                id=run.claim.id,
                status=ended.status,
                reason=ended.reason,
                message=ended.message,
                traceback=ended.traceback,
                run_log=outcome.clean(run.log.text()),
                result=ended.result,
                progress=run.progress,
                meta=_meta(tuple((run.code or {}).items()), ended.detail),
                started_at=run.started_at,
                returned=not run.is_overdue,
                retry_delay_s=self._retry_delay(run, ended),
            )
        )

    def _retry_delay(self, run: HeldRun, ended: Outcome) -> int | None:
        if run.definition is None:
            return None
        definition = run.definition
        return outcome.retry_delay(ended, run.claim.attempt, definition.max_attempts, definition.retry_delays)

    async def _load(self, run: HeldRun, definition: Definition) -> type[BaseJob] | Isolated:
        path = definition.handler_path
        cached = self._loader.cached(path)
        if cached is not None and cached.isolation != "process":
            return cached
        isolated = Isolated(path, self._loader.packages, self._loader.path)

        def load() -> type[BaseJob] | Isolated:
            # Looked at first: a module that would harm the hub by its import is never imported here.
            if self._loader.is_isolated(path):
                return isolated
            job_class = self._loader.load(path)
            return isolated if job_class.isolation == "process" else job_class

        # Importing runs foreign code: off the hub's loop, and what it starts belongs to the run.
        context = contextvars.copy_context()
        context.run(capture.current.set, run.log)
        loaded: asyncio.Future[Returned] = asyncio.get_running_loop().create_future()
        name = f"run {run.claim.id} ({run.claim.job_id})"
        self._pool.start_in_thread(Call(name, load, context, loaded.set_result))
        run.stopping = asyncio.Event()
        stopping = asyncio.create_task(run.stopping.wait())
        either: set[asyncio.Future[Any]] = {loaded, stopping}
        await asyncio.wait(either, timeout=LOAD_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loaded.done():
            run.is_overdue = True  # it keeps its place until the import really returns
            loaded.add_done_callback(lambda future: run.code_returned(future.result()))
            if run.stop_reason is not None:
                raise StoppedBefore
            raise HandlerError(f"{path} did not finish loading within {LOAD_TIMEOUT_S:.0f} s")
        returned = loaded.result()
        if returned.error is not None:
            raise returned.error
        plugin: type[BaseJob] | Isolated = returned.value
        return plugin

    async def _secrets(self, revision_id: int, token: str | None) -> dict[str, Any]:
        if not token:
            return {}
        try:
            return self._vault.decrypt(token)
        except SecretError:
            # The keys may have been rotated, and the old one retired, since the definition was read.
            with contextlib.suppress(*UNAVAILABLE):
                found = (await revisions.definitions(self._db, [revision_id])).get(revision_id)
                if found is not None and found.secret_cfg and found.secret_cfg != token:
                    return self._vault.decrypt(found.secret_cfg)
            raise

    async def _confirm_lease(self, run: HeldRun) -> None:
        """Rule 9: start only with lease left, or after a beat that finds the row still RUNNING."""
        while boottime() >= run.lease_until and not run.is_withdrawn:
            run.beaten = asyncio.Event()
            await run.beaten.wait()
        if run.is_withdrawn:
            raise Withdrawn


@lru_cache(1024)
def _meta(code: tuple[tuple[str, str], ...], detail: str | None) -> str:
    """What goes into a run's meta, as JSON: the same for nearly all runs of a handler."""
    said = {"code": dict(code), "detail": detail}
    return json.dumps({name: value for name, value in said.items() if value})
