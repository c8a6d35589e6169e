"""A plugin that blocks its event loop, and what others on that loop come to."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from connecthub.engine import plugin_loop
from connecthub.engine.plugin_loop import Call, PluginLoop
from connecthub.engine.pool import Pool
from connecthub.storage import requests
from connecthub.storage.audit import Actor
from tests.engine import sample_jobs
from tests.engine.conftest import Rig

SOMEBODY = Actor("somebody", None)


@pytest.fixture
def loaded(hub: Rig) -> Rig:
    """A hub that has loaded the handlers of the Jobs `blocks`, `waits` and `echoes`."""
    sample_jobs.released.set()
    for job_id, handler in [("blocks", "BlockJob"), ("waits", "WaitJob"), ("echoes", "EchoJob")]:
        hub.job(job_id, handler)
        hub.wait(hub.run(job_id, seconds=0))
    sample_jobs.released.clear()
    sample_jobs.begun.clear()
    return hub


def block(hub: Rig) -> int:
    """A run that blocks the loop from now on, until sample_jobs.released is set."""
    run_id = hub.run("blocks")
    assert sample_jobs.begun.wait(10)
    sample_jobs.begun.clear()
    return run_id


def cancel(hub: Rig, run_id: int) -> None:
    hub.do(requests.cancel_run(hub.db, run_id, actor=SOMEBODY))


def test_what_has_returned_does_not_wait_for_what_blocks_after_it(loaded: Rig) -> None:
    loaded.do(requests.set_paused(loaded.db, True, actor=SOMEBODY))
    echoes, blocks = loaded.run("echoes"), loaded.run("blocks")  # one claim takes both
    loaded.do(requests.set_paused(loaded.db, False, actor=SOMEBODY))
    assert loaded.wait(echoes)["status"] == "SUCCESS"
    assert sample_jobs.begun.is_set() and loaded.row(blocks)["status"] == "RUNNING"


def test_what_moved_to_a_fresh_loop_can_be_cancelled_once_the_old_one_is_free_again(loaded: Rig) -> None:
    blocks = block(loaded)
    waits = loaded.run("waits")
    assert sample_jobs.begun.wait(10)
    sample_jobs.released.set()
    loaded.wait(blocks)
    cancel(loaded, waits)
    row = loaded.wait(waits)
    assert (row["status"], row["lease_expires_at"]) == ("CANCELLED", None)


def test_what_was_cancelled_behind_a_blocked_loop_does_not_begin_on_a_fresh_one(
    loaded: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_loop, "BLOCKED_S", 3.0)
    block(loaded)
    waits = loaded.run("waits")
    loaded.wait(waits, "RUNNING")
    cancel(loaded, waits)
    row = loaded.wait(waits)
    assert (row["status"], row["started_at"], row["lease_expires_at"]) == ("CANCELLED", None, None)


def test_a_plugin_cannot_say_how_the_tasks_of_others_are_made(loaded: Rig) -> None:
    loaded.job("factory", "FactoryJob")
    loaded.wait(loaded.run("factory"))
    assert loaded.wait(loaded.run("echoes"))["status"] == "SUCCESS"


def test_what_moved_and_blocks_again_does_not_disturb_the_loop_that_it_left(
    loaded: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The task that it left behind finds it gone while it is in the middle of something."""
    loaded.do(requests.set_paused(loaded.db, True, actor=SOMEBODY))
    first, second = loaded.run("blocks", seconds=3), loaded.run("blocks")  # one claim takes both
    loaded.do(requests.set_paused(loaded.db, False, actor=SOMEBODY))
    loaded.wait(first)
    sample_jobs.released.set()
    assert loaded.wait(second)["status"] == "SUCCESS"
    assert "was left behind" not in caplog.text


def test_calls_that_hang_in_helper_threads_hold_up_no_other_run(hub: Rig) -> None:
    hub.job("many", "HelpersJob", public_cfg={"threads": 40})
    hub.job("one", "HelpersJob", public_cfg={"threads": 0})
    many = hub.run("many")
    assert sample_jobs.begun.wait(10)
    assert hub.wait(hub.run("one"))["status"] == "SUCCESS"
    assert hub.row(many)["status"] == "RUNNING"
    sample_jobs.released.set()


def plugin_loops() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "connecthub-plugins"}


def test_a_loop_that_was_replaced_ends_once_it_is_free_again(
    loaded: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[PluginLoop] = []
    look = PluginLoop.is_blocked

    def count(self: PluginLoop) -> bool:
        looks.append(self)
        return look(self)

    monkeypatch.setattr(PluginLoop, "is_blocked", count)
    before = plugin_loops()
    blocks = block(loaded)
    loaded.until(lambda: plugin_loops() - before)
    looks.clear()
    loaded.until(lambda: len(looks) > 4)  # although nothing else is going
    sample_jobs.released.set()
    loaded.wait(blocks)
    loaded.until(lambda: not plugin_loops() & before)


def test_what_returns_while_the_loop_is_looked_at_does_not_wait_for_what_blocks_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, blocked, released = threading.Event(), threading.Event(), threading.Event()
    left: list[asyncio.Task[None]] = []
    go = asyncio.Event()  # of the plugin loop, which waits for it first
    look = PluginLoop.is_blocked

    async def plugin() -> None:
        left.append(asyncio.create_task(leave_behind()))
        begun.set()
        await go.wait()

    async def leave_behind() -> None:
        await go.wait()
        blocked.set()
        released.wait(20)

    def look_and_be_late(self: PluginLoop) -> bool:
        found = look(self)
        if begun.is_set() and not blocked.is_set():
            self.loop.call_soon_threadsafe(go.set)
            assert blocked.wait(10)
        return found

    async def run() -> None:
        pool, told = Pool(1, lambda: None), asyncio.Event()
        call = Call("plugin", plugin, contextvars.copy_context(), lambda how: told.set())
        pool.start_async(call)
        try:
            async with asyncio.timeout(10):
                await told.wait()
            assert not released.is_set()
        finally:
            released.set()
            await pool.close()

    monkeypatch.setattr(PluginLoop, "is_blocked", look_and_be_late)
    asyncio.run(run())
