"""What a run becomes, with a hub that runs it."""

from __future__ import annotations

import gc
import json

import pytest

from connecthub.engine import runner
from connecthub.engine.capture import HEAD_BYTES, TAIL_BYTES
from connecthub.errors import RefusedError
from connecthub.run_log import TRUNCATED
from connecthub.storage import requests
from connecthub.storage.audit import Actor
from tests.engine import sample_jobs
from tests.engine.conftest import Rig, spellings_in

CANARY = "canary-60b1d9aa"
SENDER = """
import logging, queue, threading
from connecthub.plugins import BaseJob

letters = queue.Queue()

def send():
    while True:
        text, sent = letters.get()
        logging.getLogger("lib").warning("POST %s", text)
        sent.set()

threading.Thread(target=send, daemon=True).start()

class SendJob(BaseJob):
    def run(self, params, secrets):
        sent = threading.Event()
        letters.put((secrets["token"], sent))
        sent.wait(10)
"""


@pytest.mark.parametrize("handler", ["EchoJob", "ThreadEchoJob"])
def test_a_run_ends_with_its_result_and_its_log(hub: Rig, handler: str) -> None:
    hub.job("a", handler, public_cfg={"x": 1, "y": 2})
    row = hub.wait(hub.run("a", y=3))
    assert (row["status"], row["reason"], row["trigger"], row["triggered_by"]) == (
        "SUCCESS",
        None,
        "manual",
        "test",
    )
    assert json.loads(row["result"])["params"] == {"x": 1, "y": 3}
    assert "INFO some.library: echo {'x': 1, 'y': 3}" in row["run_log"]
    assert row["queued_at"] <= row["started_at"] <= row["finished_at"]
    assert row["lease_expires_at"] is None and row["worker_id"] is not None
    assert row["idempotency_key"].startswith("a:run:")


def test_a_failing_run_is_tried_again_until_it_succeeds(hub: Rig) -> None:
    hub.job("a", "FailJob", public_cfg={"until": 3}, max_attempts=3, retry_delays=[0])
    first = hub.run("a")
    rows = hub.until(
        lambda: (
            len(rows := hub.sql("SELECT * FROM job_logs WHERE finished_at IS NOT NULL ORDER BY id")) == 3
            and rows
        )
    )
    assert [(row["attempt"], row["status"], row["reason"]) for row in rows] == [
        (1, "FAILURE", "exception"),
        (2, "FAILURE", "exception"),
        (3, "SUCCESS", None),
    ]
    assert rows[0]["id"] == first and rows[1]["retry_of"] == first
    assert len({row["idempotency_key"] for row in rows}) == 1
    assert rows[0]["message"] == "ValueError: no luck" and "in run" in rows[0]["traceback"]
    assert rows[2]["message"] == "made it"


def test_no_attempt_beyond_the_last_and_none_for_a_handler_that_is_lost(hub: Rig) -> None:
    hub.job("fails", "FailJob", max_attempts=2, retry_delays=[0])
    hub.job("lost", "tests.engine.gone_jobs:GoneJob", max_attempts=3, retry_delays=[0])
    hub.run("fails")
    lost = hub.wait(hub.run("lost"))
    assert (lost["status"], lost["reason"]) == ("FAILURE", "bad_handler") and "gone_jobs" in lost["message"]
    hub.until(lambda: len(hub.sql("SELECT FROM job_logs WHERE job_id = 'fails' AND status = 'FAILURE'")) == 2)
    assert not hub.sql("SELECT FROM job_logs WHERE status = 'QUEUED'")
    assert len(hub.sql("SELECT FROM job_logs WHERE job_id = 'lost'")) == 1


def test_a_secret_that_cannot_be_read_says_so(hub: Rig) -> None:
    hub.job("a", "EchoJob")
    hub.sql("UPDATE jobs SET secret_cfg = 'gAAAAABkcut'")
    row = hub.wait(hub.run("a"))
    assert (row["status"], row["reason"]) == ("FAILURE", "bad_secret") and "looks truncated" in row["message"]


@pytest.mark.parametrize("handler", ["HoldJob", "WaitJob"])
def test_cancel_asks_a_going_run_to_stop(hub: Rig, handler: str) -> None:
    hub.job("a", handler)
    run_id = hub.run("a")
    assert sample_jobs.begun.wait(10)
    assert hub.do(requests.cancel_run(hub.db, run_id, actor=Actor("li.na", None))) == "RUNNING"
    row = hub.wait(run_id)
    assert (row["status"], row["reason"]) == ("CANCELLED", "cancelled")
    assert json.loads(row["meta"])["cancelled_by"] == "li.na"


def test_cancel_ends_a_queued_run_at_once_and_refuses_an_ended_one(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    run_id = rig.run("a")
    assert rig.do(requests.cancel_run(rig.db, run_id, actor=Actor("li.na", None))) == "CANCELLED"
    assert rig.row(run_id)["reason"] == "cancelled"
    with pytest.raises(RefusedError, match="ended already"):
        rig.do(requests.cancel_run(rig.db, run_id, actor=Actor("li.na", None)))


@pytest.mark.parametrize("handler", ["HoldJob", "WaitJob"])
def test_a_run_past_its_timeout_fails_with_that_reason(hub: Rig, handler: str) -> None:
    hub.job("a", handler, timeout_s=1)
    row = hub.wait(hub.run("a"))
    assert (row["status"], row["reason"]) == ("FAILURE", "timeout")


def test_code_that_ignores_its_timeout_keeps_its_place_until_it_returns(hub: Rig) -> None:
    hub.job("a", "HoldJob", timeout_s=1, public_cfg={"stubborn": True})
    run_id = hub.run("a")
    row = hub.wait(run_id)
    assert (row["status"], row["reason"]) == ("FAILURE", "timeout")
    assert row["lease_expires_at"] is not None, "others must see that the place is still held"
    assert hub.hubs[0][0]._pool.taken == 1
    with pytest.raises(RefusedError, match="still running"):
        hub.do(requests.retry_run(hub.db, run_id, actor=Actor("test", None)))
    sample_jobs.released.set()
    hub.until(lambda: hub.row(run_id)["lease_expires_at"] is None)
    hub.until(lambda: hub.hubs[0][0]._pool.taken == 0)
    late = json.loads(hub.row(run_id)["meta"])
    assert late["returned_late"] == "value" and json.loads(late["late_result"]) == {"held": True}


def test_retry_runs_the_old_revision_and_is_refused_while_running(hub: Rig) -> None:
    hub.job("a", "EchoJob", public_cfg={"x": 1})
    first = hub.wait(hub.run("a", y=5))
    hub.sql("""UPDATE jobs SET public_cfg = '{"x": 2}'""")
    again = hub.wait(hub.do(requests.retry_run(hub.db, first["id"], actor=Actor("wang", None))))
    assert (again["trigger"], again["retry_of"], again["revision_id"]) == (
        "retry",
        first["id"],
        first["revision_id"],
    )
    assert json.loads(again["result"])["params"] == {"x": 1, "y": 5}
    assert again["idempotency_key"] == first["idempotency_key"]

    hub.job("b", "HoldJob")
    going = hub.run("b")
    hub.wait(going, "RUNNING")
    with pytest.raises(RefusedError, match="still running"):
        hub.do(requests.retry_run(hub.db, going, actor=Actor("wang", None)))


def test_progress_and_log_are_shown_while_the_run_is_going(hub: Rig) -> None:
    hub.job("a", "HoldJob")
    run_id = hub.run("a")
    row = hub.until(lambda: row if (row := hub.row(run_id))["progress"] else None)
    assert json.loads(row["progress"]) == {"done": 1, "total": 3}
    assert row["status"] == "RUNNING" and row["started_at"] is not None


def test_long_logs_are_shown_while_their_runs_are_going_however_many(hub: Rig) -> None:
    hub.job("a", "HoldJob", public_cfg={"lines": 20_000}, overlap="allow")
    ids = [hub.run("a") for _ in range(hub.settings.pool.size)]
    hub.until(lambda: all(TRUNCATED in (hub.row(run_id)["run_log"] or "") for run_id in ids))
    assert {hub.row(run_id)["status"] for run_id in ids} == {"RUNNING"}


@pytest.mark.parametrize("how", ["exit", "interrupt", "stop"])
def test_no_exception_of_a_plugin_stops_the_hub(hub: Rig, how: str) -> None:
    hub.job("bad", "ExitJob", public_cfg={"how": how})
    hub.job("good", "EchoJob")
    assert hub.wait(hub.run("bad"))["reason"] == "exception"
    assert hub.wait(hub.run("good"))["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("nan", "FAILURE", "no JSON"),
        ("nul", "FAILURE", "NUL"),
        ("path", "SUCCESS", None),
        ("object", "FAILURE", "no JSON"),
        ("surrogate", "FAILURE", "no JSON"),
        ("large", "SUCCESS", None),
    ],
)
def test_a_result_that_is_no_json_is_a_visible_failure(
    hub: Rig, what: str, status: str, words: str | None
) -> None:
    hub.job("a", "ReturnJob", public_cfg={"what": what})
    row = hub.wait(hub.run("a"))
    assert row["status"] == status
    if words:
        assert words in row["message"]
    elif what == "large":
        assert json.loads(row["result"])["truncated"] is True


def test_ends_too_large_for_one_statement_are_all_stored(hub: Rig) -> None:
    hub.job("large", "LargeJob")
    run_ids = [hub.run("large") for _ in range(4)]
    for run_id in run_ids:
        hub.wait(run_id, "RUNNING")
    sample_jobs.released.set()
    rows = [hub.wait(run_id) for run_id in run_ids]
    assert [(row["status"], len(json.loads(row["result"])["text"])) for row in rows] == [
        ("SUCCESS", 400_000)
    ] * 4
    assert sorted(sample_jobs.calls) == run_ids, (
        "an end that is dropped lets a beat take the run up once more"
    )


def test_a_blocked_plugin_loop_delays_no_other_run(hub: Rig) -> None:
    hub.job("blocks", "BlockJob")
    hub.job("other", "EchoJob")
    blocking = hub.run("blocks")
    assert sample_jobs.begun.wait(10)
    assert hub.wait(hub.run("other"))["status"] == "SUCCESS"
    assert hub.row(blocking)["status"] == "RUNNING"


def test_no_secret_is_stored_in_clear(rig: Rig) -> None:
    rig.start_hub()
    secret = 'p"a s\\s+wörd/123'
    rig.job("a", "LeakJob", secrets={"password": secret})
    for params in ({}, {"fail": True}):
        row = rig.wait(rig.run("a", **params))
        assert "printed ***" in row["run_log"] and "client.***" in row["run_log"]
        assert row["run_log"].count("does not propagate, ***") == 1
        assert not spellings_in(row, secret) and not spellings_in(row, "token-got-later")


def test_each_run_has_its_own_log_from_wherever_it_logs(rig: Rig) -> None:
    rig.start_hub()
    for mark in ("first", "second"):
        rig.job(mark, "ChattyJob", public_cfg={"mark": mark})
    runs = {mark: rig.run(mark) for mark in ("first", "second")}
    for mark, other in (("first", "second"), ("second", "first")):
        log = rig.wait(runs[mark])["run_log"]
        for said in (
            "logged",
            "printed",
            "on stderr",
            "unfinished",
            "thread",
            "executor",
            "to_thread",
            "task",
        ):
            assert f"{mark} {said}" in log
        assert other not in log


def test_a_long_log_keeps_its_head_and_its_tail(hub: Rig) -> None:
    hub.job("a", "ChattyJob", public_cfg={"mark": "m", "lines": 20_000})
    log = hub.wait(hub.run("a"))["run_log"]
    assert "m line 0\n" in log and "m line 19999\n" in log and TRUNCATED in log
    assert len(log.encode()) <= HEAD_BYTES + TAIL_BYTES + 1024


def test_shutdown_cancels_what_does_not_end_and_gives_back_what_has_not_begun(hub: Rig) -> None:
    hub.job("a", "HoldJob")
    run_id = hub.run("a")
    hub.wait(run_id, "RUNNING")
    assert sample_jobs.begun.wait(10)
    hub.stop_hub()
    row = hub.row(run_id)
    assert (row["status"], row["reason"]) == ("CANCELLED", "shutdown")


def test_a_run_whose_hub_is_gone_becomes_lost(rig: Rig) -> None:
    rig.job("a", "EchoJob", rerun_lost=True, max_attempts=2, retry_delays=[0])
    run_id = rig.run("a")
    rig.sql(
        "UPDATE job_logs SET status = 'RUNNING', worker_id = gen_random_uuid(),"
        " lease_expires_at = clock_timestamp() - interval '1 s'"
    )
    rig.start_hub()
    assert rig.wait(run_id)["status"] == "LOST"
    again = rig.until(lambda: rig.sql("SELECT * FROM job_logs WHERE attempt = 2 AND status = 'SUCCESS'"))
    assert again[0]["retry_of"] == run_id


def test_a_handler_that_hangs_when_imported_ends_visibly(hub: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOAD_TIMEOUT_S", 0.3)
    folder = hub.settings.plugin_path / "plugged"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "hangs.py").write_text("from tests.engine import sample_jobs\nsample_jobs.released.wait(30)\n")
    hub.job("a", "plugged.hangs:AnyJob")
    row = hub.wait(hub.run("a"))
    assert row["reason"] == "bad_handler" and "did not finish loading" in row["message"]
    assert row["lease_expires_at"] is not None, "its place is still held"
    sample_jobs.released.set()
    hub.until(lambda: hub.row(row["id"])["lease_expires_at"] is None)


def test_a_run_can_be_cancelled_while_its_handler_is_loading(hub: Rig) -> None:
    folder = hub.settings.plugin_path / "plugged"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "slow.py").write_text(
        "from tests.engine import sample_jobs\nsample_jobs.begun.set()\nsample_jobs.released.wait(30)\n"
    )
    hub.job("a", "plugged.slow:AnyJob")
    run_id = hub.run("a")
    assert sample_jobs.begun.wait(10)
    hub.do(requests.cancel_run(hub.db, run_id, actor=Actor("li.na", None)))
    assert (row := hub.wait(run_id))["status"] == "CANCELLED" and row["reason"] == "cancelled"


def test_a_retry_takes_the_place_of_the_attempt_that_waits(hub: Rig) -> None:
    hub.job("a", "FailJob", max_attempts=2, retry_delays=[3600])
    first = hub.run("a")
    hub.wait(first)
    again = hub.do(requests.retry_run(hub.db, first, actor=Actor("wang", None)))
    hub.wait(again)
    delayed = hub.sql("SELECT * FROM job_logs WHERE retry_of = $1 AND attempt = 2", first)[0]
    assert (delayed["status"], delayed["reason"]) == ("CANCELLED", "superseded")


def test_a_run_whose_revision_is_gone_ends_visibly(hub: Rig) -> None:
    hub.job("a", "EchoJob")
    hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
        " VALUES ('a', 999999, 'manual', 'QUEUED', 'k')"
    )
    assert hub.wait(hub.sql("SELECT max(id) AS id FROM job_logs")[0]["id"])["reason"] == "bad_handler"


def test_what_a_plugin_leaves_behind_neither_ends_its_loop_nor_tells_its_secret(
    hub: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    hub.job("leaves", "LeftBehindJob", secrets={"password": "canary-secret"})
    hub.job("other", "EchoJob")
    row = hub.wait(hub.run("leaves"))
    assert row["reason"] == "exception" and "RawError" in row["message"]
    assert hub.wait(hub.run("other"))["status"] == "SUCCESS"
    hub.until(lambda: "a plugin tried to end its event loop: SystemExit" in caplog.text)
    assert "canary-secret" not in caplog.text


def test_what_only_the_collector_finds_tells_no_secret(hub: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It tells of it in any thread: the hub's, or one that another run is in."""
    hub.job("a", "CollectedJob", secrets={"token": CANARY})
    gc.disable()
    assert hub.wait(hub.run("a"))["status"] == "SUCCESS"
    gc.enable()
    gc.collect()
    for kind in ("ConnectionError", "ValueError"):
        assert f"something that was left behind failed: {kind} at {sample_jobs.__file__}:" in caplog.text
    assert CANARY not in caplog.text


def test_a_thread_that_a_module_starts_when_it_is_imported_logs_into_the_run(rig: Rig) -> None:
    folder = rig.settings.plugin_path / "plugged"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "sender.py").write_text(SENDER)
    rig.job("a", "plugged.sender:SendJob", secrets={"token": CANARY})
    rig.start_hub()
    row = rig.wait(rig.run("a"))
    assert row["status"] == "SUCCESS", row["message"]
    assert "WARNING lib: POST ***\n" in row["run_log"]


def test_shutdown_never_gives_back_what_has_begun(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.start_hub()
    rig.job_that_loads_slowly("a")
    run_id = rig.run("a")
    assert sample_jobs.begun.wait(10), "it is loading, and has not begun"
    rig.stop_hub()
    assert rig.row(run_id)["status"] == "QUEUED"
    sample_jobs.released.set()
    rig.until(lambda: f"run {run_id} was not started" in caplog.text)
    assert not sample_jobs.calls, "the hub that gave it back must not begin it"
    rig.start_hub()
    row = rig.wait(run_id)
    assert row["status"] == "SUCCESS" and sample_jobs.calls == [run_id]
