"""For tests of Jobs: the pytest fixture `run_job` runs one with a captured context, as a hub would.

A test module, or the conftest.py of the folder that pytest is started in, says

    pytest_plugins = ["connecthub.testing"]

and a test

    def test_greets(run_job):
        ran = run_job("extensions.greet.job:GreetJob", {"names": ["Li Na"]})
        assert ran.status == "SUCCESS" and ran.result == {"greeted": 1}

Tests may import from here as well, before pytest could rewrite its asserts: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from connecthub.config import load_settings
from connecthub.engine import capture
from connecthub.engine.once import Ended, run_once
from connecthub.plugins import BaseJob
from connecthub.plugins.inspect import field_errors
from connecthub.plugins.loader import Loader


@dataclass(frozen=True)
class Ran:
    """A run as a hub would store it: everything masked."""

    status: str  # SUCCESS, FAILURE or CANCELLED
    reason: str | None
    result: Any
    message: str  # result["message"] or the exception as one line, then the WARNING lines of the log
    traceback: str
    log: str
    progress: list[tuple[int, int | None]]  # each call of ctx.progress: done, total
    masked: list[str]  # each text given to ctx.mask, as it was


def run_class(
    job: type[BaseJob] | str,
    params: dict[str, Any] | None = None,
    secrets: dict[str, Any] | None = None,
    *,
    job_id: str = "job",
    scheduled_for: datetime | None = None,
    attempt: int = 1,
    timeout_s: float = 60,
    cancel_at: int | None = None,
) -> Ran:
    """Run a class, or the one of a handler path as the settings allow it, in this process.

    `timeout_s`, 0 for none, ends it as a Job's does: code that goes on five seconds later is left to itself.
    `cancel_at`: cancel the run once ctx.progress has told of so many. Raises ValueError where the class's
    `Params` or `Secrets` refuse what they are given, as saving a Job would, and HandlerError for a bad path.
    A class with isolation = "process" runs in a thread here.
    """
    if isinstance(job, str):
        plugins = load_settings(None)
        job = Loader(plugins.plugins.packages, plugins.plugin_path).load(job)
    refused = field_errors(job, params or {}, secrets or {})
    if refused:
        raise ValueError("; ".join(f"{one.section} {one.field}: {one.message}" for one in refused))
    work = partial(
        run_once,
        job,
        params or {},
        secrets or {},
        job_id=job_id,
        timeout_s=timeout_s,
        cancel_at=cancel_at,
        scheduled_for=scheduled_for,
        attempt=attempt,
    )
    # In a thread: a test may have a loop of its own.
    with capture.capturing(), ThreadPoolExecutor(1) as executor:
        return _ran(executor.submit(lambda: asyncio.run(work())).result())


def _ran(ended: Ended) -> Ran:
    stored = ended.outcome
    return Ran(
        status=stored.status,
        reason=stored.reason,
        result=None if stored.result is None else json.loads(stored.result),
        message=stored.message or "",
        traceback=stored.traceback or "",
        log=ended.log,
        progress=ended.progress,
        masked=ended.masked,
    )


@pytest.fixture
def run_job() -> Callable[..., Ran]:
    """`run_job(job, params, secrets, ...)`: see run_class."""
    return run_class
