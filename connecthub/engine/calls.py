"""How a run's plugin is called: on the plugin loop, in a thread, or in a child process."""

from __future__ import annotations

import contextvars
import inspect
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from connecthub.engine import capture, outcome
from connecthub.engine.child import Child, log_levels
from connecthub.engine.held import HeldRun
from connecthub.engine.plugin_loop import Call
from connecthub.engine.pool import Pool
from connecthub.plugins import BaseJob, RunContext


@dataclass(frozen=True)
class Isolated:
    """A handler that a child loads."""

    handler_path: str
    packages: tuple[str, ...]
    path: Path


def begin(
    pool: Pool,
    run: HeldRun,
    plugin: type[BaseJob] | Isolated,
    params: dict[str, Any],
    secrets: dict[str, Any],
) -> None:
    """Call the plugin; its return, or what it raised, comes to `run.code_returned`."""
    claim = run.claim
    ctx = RunContext(
        run_id=claim.id,
        job_id=claim.job_id,
        scheduled_for=claim.scheduled_for,
        attempt=claim.attempt,
        trigger=claim.trigger,  # type: ignore[arg-type]  # the database's CHECK says so
        idempotency_key=claim.idempotency_key,
        on_mask=run.masker.add,
        on_progress=run.tell_progress,
        asked_to_stop=run.asked_to_stop,
    )
    if isinstance(plugin, Isolated):
        run.call = Child(_name(run), run, _request(plugin, ctx, params, secrets))
        pool.start_in_thread(run.call)
    else:
        _call_here(pool, run, plugin, ctx, params, secrets)


def _name(run: HeldRun) -> str:
    return f"run {run.claim.id} ({run.claim.job_id})"


def _call_here(
    pool: Pool,
    run: HeldRun,
    job_class: type[BaseJob],
    ctx: RunContext,
    params: dict[str, Any],
    secrets: dict[str, Any],
) -> None:
    context = contextvars.copy_context()
    context.run(capture.current.set, run.log)

    def start() -> Any:
        job = job_class()
        job.ctx = ctx
        return job.run(params, secrets)

    def in_thread() -> outcome.Result:
        run.begin()
        try:
            return outcome.encode(start(), run.masker)
        except BaseException as error:
            failed = outcome.describe(error, run.masker)
        raise failed

    async def on_loop() -> outcome.Result:
        run.begin()
        try:
            return outcome.encode(await start(), run.masker)
        except BaseException as error:
            failed = outcome.describe(error, run.masker)
        raise failed

    if _is_async(job_class):
        run.call = Call(_name(run), on_loop, context, run.code_returned)
        pool.start_async(run.call)
    else:
        run.call = Call(_name(run), in_thread, context, run.code_returned)
        pool.start_in_thread(run.call)


@lru_cache(1024)
def _is_async(job_class: type[BaseJob]) -> bool:
    return inspect.iscoroutinefunction(job_class.run)


def _request(
    plugin: Isolated, ctx: RunContext, params: dict[str, Any], secrets: dict[str, Any]
) -> dict[str, Any]:
    """What a child is told; over a pipe, for others can read its command line and environment."""
    return {
        "handler_path": plugin.handler_path,
        "packages": plugin.packages,
        "path": str(plugin.path),
        "sys_path": [str(entry) for entry in sys.path],
        "log_levels": log_levels(),
        "params": params,
        "secrets": secrets,
        "context": {
            "run_id": ctx.run_id,
            "job_id": ctx.job_id,
            "scheduled_for": ctx.scheduled_for.isoformat() if ctx.scheduled_for else None,
            "attempt": ctx.attempt,
            "trigger": ctx.trigger,
            "idempotency_key": ctx.idempotency_key,
        },
    }
