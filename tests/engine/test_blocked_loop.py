"""A plugin that blocks its event loop, and what others on that loop come to."""

from __future__ import annotations

import pytest

from connecthub.engine import plugin_loop
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
    assert "left on its event loop" not in caplog.text
