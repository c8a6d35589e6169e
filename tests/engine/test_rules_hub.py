"""The rules of a run's life that the hub keeps: each test fails when its rule is taken out of the engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine import dispatcher, outcome
from connecthub.engine.held import HeldRun, LeaseStale, Withdrawn
from connecthub.engine.hub import Hub
from connecthub.engine.misfire import plan
from connecthub.engine.outcome import MESSAGE_CHARS, Outcome, Result, Returned
from connecthub.run_log import TRUNCATED
from connecthub.security import keyfile
from connecthub.security.redaction import Masker
from connecthub.storage import requests, revisions, runs
from connecthub.storage.audit import Actor
from connecthub.storage.database import Database
from connecthub.storage.revisions import Definition
from connecthub.storage.runs import Claim
from connecthub.storage.schedule import DueJobs
from tests.engine import sample_jobs
from tests.engine.conftest import EXPIRED, Rig
from tests.engine.test_outage import Outage

LI = Actor("li.na", None)


@contextmanager
def loading(rig: Rig) -> Iterator[int]:
    """A claimed run whose handler loads, slowly, until the block ends; its id."""
    rig.job_that_loads_slowly("a")
    run_id = rig.run("a")
    assert sample_jobs.begun.wait(10)
    yield run_id
    sample_jobs.released.set()


async def locking(rig: Rig, table: str) -> asyncpg.Connection[asyncpg.Record]:
    """A connection that holds the table until it is closed."""
    connection = await asyncpg.connect(rig.dsn)
    await connection.execute(f"BEGIN; LOCK TABLE {table}")
    return connection


def reading(hub: Hub, name: str) -> float:
    return next(one.value for one in hub.readings() if one.name == name)


def test_rules_8_and_19_a_claim_whose_answer_was_lost_is_taken_up_and_not_given_back(hub: Rig) -> None:
    hub.job("a", "EchoJob")
    hub.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
    )
    hub.sql(
        "CREATE TRIGGER refuse BEFORE UPDATE ON job_logs FOR EACH ROW"
        " WHEN (OLD.status = 'RUNNING' AND NEW.status = 'QUEUED') EXECUTE FUNCTION refuse()"
    )
    failpoints.arm("claim.after_answer:raise:0")
    try:
        run_id = hub.run("a")
        hub.wait(run_id, "RUNNING")
    finally:
        failpoints.arm("")
    assert hub.wait(run_id)["status"] == "SUCCESS"


def test_rule_9_with_its_lease_run_out_a_run_begins_only_after_a_beat(hub: Rig) -> None:
    engine = hub.hubs[0][0]
    heartbeat, leases = engine._loops[0], engine._leases

    async def stop_the_beat(run: HeldRun) -> None:
        await heartbeat.stop()
        run.lease_until = boottime() - 1
        assert run.beaten is None

    with loading(hub) as run_id:
        run = engine.held[run_id]
        hub.do(stop_the_beat(run))
    hub.until(lambda: run.beaten is not None, timeout_s=5)
    assert not sample_jobs.calls and run.call is None
    hub.do(leases.beat_once())
    assert hub.wait(run_id)["status"] == "SUCCESS" and sample_jobs.calls == [run_id]


def test_rule_9_a_run_that_became_lost_before_it_began_never_begins(
    hub: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with loading(hub) as run_id:
        run = hub.hubs[0][0].held[run_id]
        hub.sql("UPDATE job_logs SET status = 'LOST', finished_at = now() WHERE id = $1", run_id)
        hub.until(lambda: run.is_withdrawn)
    hub.until(lambda: f"run {run_id} was not started: it is no longer this hub's" in caplog.text)
    hub.until(lambda: hub.row(run_id)["lease_expires_at"] is None)
    assert not sample_jobs.calls and hub.row(run_id)["status"] == "LOST"


def test_rule_9_the_plugins_thread_looks_at_the_lease_itself() -> None:
    now = datetime.now(UTC)
    claim = Claim(1, "a", 1, "manual", None, 1, "k", None, False, now, now)

    async def begin(lease_until: float) -> HeldRun:
        run = HeldRun(claim, lease_until, lambda run, how: None, lambda run, how: None)
        run.begin()
        return run

    assert asyncio.run(begin(boottime() + 60)).started_at is not None
    with pytest.raises(LeaseStale):
        asyncio.run(begin(boottime()))


def test_rule_19_what_was_given_back_does_not_begin_in_the_plugins_thread() -> None:
    now = datetime.now(UTC)
    claim = Claim(1, "a", 1, "manual", None, 1, "k", None, False, now, now)

    async def begin_after(withdraw: Callable[[HeldRun], object]) -> None:
        run = HeldRun(claim, boottime() + 60, lambda run, how: None, lambda run, how: None)
        withdraw(run)
        run.begin()

    for withdraw in (HeldRun.withdraw, HeldRun.settle):
        with pytest.raises(Withdrawn):
            asyncio.run(begin_after(withdraw))


def test_rule_9_a_run_that_is_stopped_before_its_beat_comes_leaves_its_place(
    hub: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, begin, stale = hub.hubs[0][0], HeldRun.begin, list[HeldRun]()

    def begin_late(run: HeldRun) -> None:
        if not stale:
            run.lease_until = 0
            stale.append(run)
            raise LeaseStale
        begin(run)

    hub.do(engine._loops[0].stop())  # no beat by itself
    monkeypatch.setattr(HeldRun, "begin", begin_late)
    hub.job("a", "EchoJob")
    run_id = hub.run("a")
    hub.until(lambda: stale and stale[0].beaten)

    async def stop_and_give_up() -> None:
        stale[0].stop("cancelled")
        stale[0]._give_up()  # as its grace is over before a beat comes

    hub.do(stop_and_give_up())
    hub.do(engine._leases.beat_once())
    assert hub.wait(run_id)["status"] == "CANCELLED"
    hub.until(lambda: engine._pool.taken == 0 and not engine.held)


def test_rule_10_a_run_that_hangs_beyond_timeout_and_grace_is_not_renewed(hub: Rig) -> None:
    hub.job("a", "HoldJob")
    run_id = hub.run("a")
    assert sample_jobs.begun.wait(10)
    engine = hub.hubs[0][0]
    run = engine.held[run_id]
    hub.do(next(loop for loop in engine._loops if loop._name == "stops").stop())
    run.timeout_s, run.started_at_boot = 1, boottime() - 100  # as if nothing had come of its timeout
    assert hub.wait(run_id)["status"] == "LOST"


def test_rule_10_code_past_its_timeout_is_renewed_and_counts_as_going(hub: Rig) -> None:
    hub.job("a", "HoldJob", timeout_s=1, public_cfg={"stubborn": True})
    run_id = hub.run("a")
    lease = hub.wait(run_id, "FAILURE")["lease_expires_at"]
    hub.until(lambda: hub.row(run_id)["lease_expires_at"] > lease + timedelta(seconds=2))
    hub.sql("UPDATE jobs SET cron_expr = '* * * * *'")
    hub.sql("UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp())")
    hub.do(hub.hubs[0][0]._ticker.tick_once())
    row = hub.sql("SELECT * FROM job_logs WHERE trigger = 'schedule' ORDER BY scheduled_for DESC")[0]
    assert (row["status"], row["reason"]) == ("SKIPPED", "overlap")
    assert json.loads(row["meta"])["blocked_by"] == run_id


def test_rule_11_a_hub_reaps_only_after_an_unbroken_lease_of_connection(
    rig: Rig, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.job("a", "EchoJob")
    lease = timedelta(seconds=rig.settings.pool.lease_s)
    row = rig.sql(EXPIRED)[0]
    rig.start_hub()
    assert rig.wait(row["id"])["finished_at"] - row["now"] >= lease

    outage = Outage(server, rig.dsn)
    outage.begin()
    rig.until(lambda: "heartbeat waits for the database" in caplog.text)
    outage.end()
    row = rig.until(lambda: _patient(rig, EXPIRED))[0]
    assert rig.wait(row["id"])["finished_at"] - row["now"] >= lease


def test_rule_11_a_hub_that_stood_still_takes_nothing_for_lost_before_it_has_beaten_for_a_lease(
    rig: Rig,
) -> None:
    """The machine slept: whichever of its timers comes first, its own run is not another one's to repeat."""
    rig.job("a", "HoldJob")
    hub = rig.start_hub()
    leases = hub._leases
    own = rig.run("a")
    assert sample_jobs.begun.wait(10)
    rig.until(lambda: _is_connected(rig, hub))

    async def stand_still() -> None:
        for loop in hub._loops:
            await loop.stop()

    rig.do(stand_still())
    [other] = rig.sql(EXPIRED)
    rig.until(lambda: hub.held[own].lease_until < boottime())
    rig.do(leases.reap_once())
    assert {rig.row(run_id)["status"] for run_id in (own, other["id"])} == {"RUNNING"}
    rig.do(leases.beat_once())
    rig.do(leases.reap_once())
    assert {rig.row(run_id)["status"] for run_id in (own, other["id"])} == {"RUNNING"}
    rig.until(lambda: rig.do(leases.beat_once()) or _is_connected(rig, hub))
    rig.do(leases.reap_once())
    assert [rig.row(run_id)["status"] for run_id in (own, other["id"])] == ["RUNNING", "LOST"]


def _is_connected(rig: Rig, hub: Hub) -> bool:
    since = hub._leases._connected_since
    return since is not None and boottime() - since > rig.settings.pool.lease_s


def _patient(rig: Rig, statement: str) -> Any:
    try:
        return rig.sql(statement)
    except (OSError, ConnectionError):  # a connection of the pool that the outage has cut
        return None


def test_rule_19_a_claim_that_answers_while_its_hub_stops_is_given_back(
    hub: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    hub.job("a", "CountedJob")
    holder = hub.do(locking(hub, "hub_state"))  # which each claim reads
    hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key)"
        " SELECT id, revision_id, 'manual', 'QUEUED', 'k' FROM jobs"
    )
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%WITH ready%'"
    hub.until(lambda: hub.sql(waiting))
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(hub.stop_hub)
        hub.until(lambda: "stopping: no new runs" in caplog.text)
        hub.do(holder.close())
        stopping.result(20)
    [row] = hub.sql("SELECT status, worker_id FROM job_logs")
    assert (row["status"], row["worker_id"]) == ("QUEUED", None) and not sample_jobs.calls


def test_what_was_being_stopped_when_its_hub_stops_ends_as_it_was_asked_to(rig: Rig) -> None:
    """Its own grace would end after the hub: five seconds, of which the hub waits for two."""
    rig.job("a", "HoldJob")
    hub = rig.start_hub()
    run_id = rig.run("a", stubborn=True)
    assert sample_jobs.begun.wait(10)
    held = hub.held[run_id]
    rig.do(requests.cancel_run(rig.db, run_id, actor=LI))
    rig.until(lambda: held.stop_reason)
    rig.stop_hub()
    row = rig.row(run_id)
    assert (row["status"], row["reason"], row["lease_expires_at"]) == ("CANCELLED", "cancelled", None)


def test_rule_20_what_is_claimed_starts_though_the_hub_is_paused(hub: Rig) -> None:
    with loading(hub) as run_id:
        hub.do(requests.set_paused(hub.db, True, actor=LI))
    assert hub.wait(run_id)["status"] == "SUCCESS"


def test_a_hub_claims_no_more_than_it_has_free_places(rig: Rig) -> None:
    rig.job("a", "HoldJob")
    ids = [rig.run("a") for _ in range(7)]
    rig.start_hub()
    engine = rig.hubs[0][0]
    rig.until(lambda: len(engine.held) >= 4)
    rig.do(engine._dispatcher.claim_once())
    assert reading(engine, "places_taken") == len(engine.held) == 4
    assert len(rig.sql("SELECT FROM job_logs WHERE status = 'QUEUED'")) == 3
    sample_jobs.released.set()
    assert {rig.wait(run_id)["status"] for run_id in ids} == {"SUCCESS"}
    rig.until(lambda: reading(engine, "places_taken") == 0)


@pytest.mark.parametrize("timeout_s", [1, None])
def test_the_pools_timeout_is_for_jobs_without_their_own(rig: Rig, timeout_s: int | None) -> None:
    ours, jobs = (3600, timeout_s) if timeout_s else (1, None)
    pool = rig.settings.pool.model_copy(update={"timeout_s": ours})
    rig.settings = rig.settings.model_copy(update={"pool": pool})
    rig.start_hub()
    rig.job("a", "WaitJob", timeout_s=jobs)
    assert rig.wait(rig.run("a"))["reason"] == "timeout"


def test_a_message_is_cut_at_fifty_thousand_characters() -> None:
    def message(characters: int) -> str | None:
        returned = Returned(Result(None, "x" * characters))
        return outcome.decide(returned, None, Masker({}), []).message

    assert MESSAGE_CHARS == 50_000
    assert message(50_000) == "x" * 50_000
    assert message(50_001) == "x" * (50_000 - len(TRUNCATED)) + TRUNCATED and TRUNCATED == "[TRUNCATED]"


def test_each_attempt_has_its_delay_and_the_last_one_repeats() -> None:
    failed = Outcome("FAILURE", "exception", may_retry=True)
    delays = [outcome.retry_delay(failed, attempt, 5, [60, 300]) for attempt in (1, 2, 3, 4, 5)]
    assert delays == [60, 300, 300, 300, None]
    assert outcome.retry_delay(failed, 1, 2, []) == 0


@pytest.mark.parametrize(("late_s", "status"), [(119, "QUEUED"), (121, "SKIPPED")])
def test_rule_3_a_fire_time_is_missed_after_two_minutes(late_s: int, status: str) -> None:
    fire = datetime(2026, 5, 4, 1, tzinfo=UTC)
    jobs = DueJobs(
        ids=["a"],
        revision_ids=[1],
        priorities=[0],
        cron_expr="0 1 4 5 *",
        timezone="UTC",
        misfire="skip",
        misfire_window_s=3600,
        overlap="skip",
        next_run_at=fire,
        schedule_from=fire - timedelta(days=1),
    )
    [row], _ = plan(jobs, fire + timedelta(seconds=late_s))
    assert (row.status, row.scheduled_for) == (status, fire)


def test_a_hub_tells_of_itself_before_it_does_anything(rig: Rig) -> None:
    """A rotation of keys waits for the hubs that it finds."""
    holder = rig.do(locking(rig, "hubs"))
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(rig.start_hub)
        rig.until(lambda: rig.sql("SELECT FROM pg_locks WHERE relation = 'hubs'::regclass AND NOT granted"))
        assert not starting.done()
        rig.do(holder.close())
        starting.result(10)


def test_a_hub_tells_of_other_keys_before_its_next_beat(rig: Rig) -> None:
    pool = rig.settings.pool.model_copy(update={"lease_s": 240.0})
    rig.settings = rig.settings.model_copy(update={"pool": pool})
    rig.start_hub()
    told = "SELECT key_ids FROM hubs"
    before = rig.sql(told)[0]["key_ids"]
    path = rig.settings.fernet_key_path
    path.write_text(keyfile.as_text([keyfile.make_key(), *keyfile.read_keys(path)]))
    after = rig.until(lambda: keys if (keys := rig.sql(told)[0]["key_ids"]) != before else None)
    assert after[1:] == before and rig.vault.key_ids == tuple(after)


def test_rule_19_a_beat_gives_nothing_back_while_the_last_claim_has_not_answered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, claim = rig.start_hub(), runs.claim
    rig.job("a", "CountedJob")
    rig.wait(rig.run("a"))
    asked, answer = threading.Event(), asyncio.Event()

    async def claim_slowly(*args: Any) -> list[Claim]:
        claims = await claim(*args)
        if claims:
            asked.set()
            await answer.wait()
        return claims

    async def beat_while_stopping() -> None:
        stopping = asyncio.create_task(engine._dispatcher.stop(10))
        await asyncio.sleep(0)
        await engine._leases.beat_once()
        answer.set()
        await stopping

    monkeypatch.setattr(runs, "claim", claim_slowly)
    run_id = rig.run("a")
    assert asked.wait(10)
    rig.do(beat_while_stopping())
    assert rig.wait(run_id)["status"] == "SUCCESS"


def test_what_a_run_needs_is_not_forgotten_while_that_of_another_is_read(
    hub: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_DEFINITIONS", 1)
    definitions, asked, answer = revisions.definitions, threading.Event(), asyncio.Event()

    async def read_slowly(db: Database, revision_ids: list[int]) -> dict[int, Definition]:
        if not asked.is_set():
            asked.set()
            await answer.wait()
        return await definitions(db, revision_ids)

    for job_id in "abc":
        hub.job(job_id, "EchoJob")
    hub.wait(hub.run("a"))
    monkeypatch.setattr(revisions, "definitions", read_slowly)
    hub.do(requests.set_paused(hub.db, True, actor=LI))
    together = [hub.run("a"), hub.run("b")]  # of one claim, and of b nothing is known yet
    hub.do(requests.set_paused(hub.db, False, actor=LI))
    assert asked.wait(10)
    hub.wait(hub.run("c"))
    hub.loop.call_soon_threadsafe(answer.set)
    assert [hub.wait(run_id)["status"] for run_id in together] == ["SUCCESS", "SUCCESS"]
