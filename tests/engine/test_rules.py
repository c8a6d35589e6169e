"""The rules of a run's life that storage keeps: each test fails when its rule is taken out of the SQL."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from connecthub.engine.endings import Endings
from connecthub.engine.spool import Spool, Unstored
from connecthub.errors import RefusedError
from connecthub.storage import requests, runs
from connecthub.storage.audit import Actor
from connecthub.storage.runs import Claim, Ending
from tests.engine.conftest import Rig

OURS, THEIRS = uuid4(), uuid4()
LEASE_S = 60
LI = Actor("li.na", None)
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def add(rig: Rig, job_id: str = "a", status: str = "QUEUED", **columns: Any) -> int:
    """Insert a run of the Job, person's unless `trigger` says otherwise; ended where `status` says so."""
    columns = {"trigger": "manual", "idempotency_key": str(uuid4())} | columns
    if columns.get("worker_id") and "lease_expires_at" not in columns:
        columns["lease_expires_at"] = moment(rig, LEASE_S)
    if status not in ("QUEUED", "RUNNING"):
        columns["finished_at"] = moment(rig)
    names = ", ".join(columns)
    marks = ", ".join(f"${number}" for number in range(3, len(columns) + 3))
    rows = rig.sql(
        f"INSERT INTO job_logs (job_id, revision_id, status, {names})"
        f" SELECT id, revision_id, $2, {marks} FROM jobs WHERE id = $1 RETURNING id",
        job_id,
        status,
        *columns.values(),
    )
    return int(rows[0]["id"])


def moment(rig: Rig, seconds: float = 0) -> Any:
    """The database's time, `seconds` from now."""
    return rig.sql("SELECT clock_timestamp() + make_interval(secs => $1) AS it", seconds)[0]["it"]


def claim(rig: Rig, places: int = 100, worker: UUID = OURS) -> list[int]:
    return [claim.id for claim in rig.do(runs.claim(rig.db, worker, LEASE_S, places))]


def end(rig: Rig, run_id: int, status: str, *, worker: UUID = OURS, delay: int | None = None) -> None:
    rig.do(runs.store_endings(rig.db, worker, [Ending(run_id, status, retry_delay_s=delay)]))


def states(rig: Rig, *run_ids: int) -> list[tuple[str, str | None]]:
    return [(row["status"], row["reason"]) for row in map(rig.row, run_ids)]


def test_rule_7_two_claims_at_once_share_the_queue_and_a_row_is_claimed_once(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    queued = {add(rig) for _ in range(100)}

    async def beside_an_open_claim() -> tuple[list[Any], list[Any]]:
        async with rig.db.transaction() as connection:
            first = await runs.claim(connection, OURS, LEASE_S, 50)
            async with asyncio.timeout(5):
                return first, await runs.claim(rig.db, THEIRS, LEASE_S, 30)

    first, second = rig.do(beside_an_open_claim())
    third = claim(rig, 30, THEIRS)
    taken = [claim.id for claim in first + second] + third
    assert (len(first), len(second), len(third)) == (50, 30, 20)
    assert sorted(taken) == sorted(queued)
    assert claim(rig) == []


def test_rule_20_while_paused_a_claim_takes_nothing(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    run_id = add(rig)
    rig.do(requests.set_paused(rig.db, True, actor=LI))
    assert claim(rig) == []
    rig.do(requests.set_paused(rig.db, False, actor=LI))
    assert claim(rig) == [run_id]


def test_rule_6_claims_go_by_priority_then_people_then_age(rig: Rig) -> None:
    for job_id in "abcd":
        rig.job(job_id, "EchoJob")
    scheduled = {"trigger": "schedule"}
    late = add(rig, "a", **scheduled)
    later = add(rig, "b", **scheduled)
    person, another = add(rig, "d"), add(rig, "d")
    urgent = add(rig, "c", priority=5, **scheduled)
    wanted = [urgent, person, another, late, later]
    assert [claim(rig, 1) for _ in wanted] == [[run_id] for run_id in wanted]
    rig.sql("UPDATE job_logs SET status = 'QUEUED', worker_id = NULL, lease_expires_at = NULL")
    assert claim(rig) == wanted


def test_what_becomes_ready_below_what_was_claimed_is_found(hub: Rig) -> None:
    hub.job("a", "EchoJob")
    early = add(hub, not_before=moment(hub, 1))
    late = [add(hub) for _ in range(3)]
    hub.hubs[0][0]._dispatcher._whole_at = float("inf")  # only what lies above is looked at for now
    for run_id in late:
        hub.loop.call_soon_threadsafe(hub.hubs[0][0]._dispatcher.wake)
        assert hub.wait(run_id)["status"] == "SUCCESS"
    assert hub.row(early)["status"] == "QUEUED"
    hub.hubs[0][0]._dispatcher._whole_at = 0.0
    assert hub.wait(early)["status"] == "SUCCESS"
    assert claim(hub) == []


def test_rule_6_an_attempt_waits_for_its_chain(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    first = add(rig, status="RUNNING", worker_id=THEIRS, idempotency_key="k")
    second = add(rig, attempt=2, retry_of=first, idempotency_key="k")
    assert claim(rig) == []
    rig.sql("UPDATE job_logs SET status = 'LOST', finished_at = now() WHERE id = $1", first)
    assert claim(rig) == [], "its lease says that the place is still held"
    rig.sql("UPDATE job_logs SET lease_expires_at = NULL WHERE id = $1", first)
    assert claim(rig) == [second]


def test_rule_7_another_hubs_end_is_not_stored(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    run_id = add(rig)
    claim(rig)
    end(rig, run_id, "FAILURE", worker=THEIRS, delay=0)
    assert states(rig, run_id) == [("RUNNING", None)] and len(rig.sql("SELECT FROM job_logs")) == 1
    end(rig, run_id, "SUCCESS")
    end(rig, run_id, "FAILURE")
    assert states(rig, run_id) == [("SUCCESS", None)], "an end is stored once"


@pytest.mark.parametrize(
    ("status", "delay", "waiting"),
    [
        ("SUCCESS", None, ("CANCELLED", "superseded")),
        ("FAILURE", None, ("CANCELLED", "superseded")),
        ("FAILURE", 0, ("QUEUED", None)),
    ],
)
def test_rule_14_an_owner_that_comes_back_makes_later_attempts_needless(
    rig: Rig, status: str, delay: int | None, waiting: tuple[str, str | None]
) -> None:
    rig.job("a", "EchoJob")
    lost = add(rig, status="LOST", worker_id=OURS, idempotency_key="k")
    later = add(rig, attempt=2, retry_of=lost, idempotency_key="k")
    end(rig, lost, status, delay=delay)
    assert states(rig, lost, later) == [(status, None), waiting]
    assert len(rig.sql("SELECT FROM job_logs")) == 2


@pytest.mark.parametrize("by", ["end", "reaper"])
@pytest.mark.parametrize(
    ("statement", "is_due"),
    [
        ("SELECT", True),
        ("UPDATE job_logs SET cancel_requested_at = now()", False),
        ("UPDATE jobs SET enabled = false", False),
        ("UPDATE jobs SET enabled = false; UPDATE job_logs SET trigger = 'manual'", True),
        ("INSERT SUCCESS k", False),
        ("INSERT FAILURE k", True),
        ("INSERT QUEUED newer", False),
        ("INSERT SKIPPED newer", True),
        ("UPDATE jobs SET overlap = 'allow'; INSERT QUEUED newer", True),
    ],
)
def test_rule_13_when_another_attempt_is_due(rig: Rig, by: str, statement: str, is_due: bool) -> None:
    rig.job("a", "EchoJob", rerun_lost=True, max_attempts=2, retry_delays=[60])
    fire, newer = moment(rig, -120), moment(rig, -60)
    lease = moment(rig, -1 if by == "reaper" else LEASE_S)
    run_id = add(
        rig,
        status="RUNNING",
        worker_id=OURS,
        trigger="schedule",
        scheduled_for=fire,
        idempotency_key="k",
        lease_expires_at=lease,
    )
    for part in statement.split("; "):
        if part.startswith("INSERT"):
            _, status, what = part.split()
            columns = {"trigger": "schedule", "scheduled_for": newer}
            add(rig, status=status, **({"idempotency_key": "k"} if what == "k" else columns))
        else:
            rig.sql(part)
    if by == "reaper":
        assert rig.reap() == [run_id]
    else:
        end(rig, run_id, "FAILURE", delay=60)
    rows = rig.sql("SELECT *, not_before - queued_at AS delay FROM job_logs WHERE retry_of = $1", run_id)
    assert [(row["attempt"], row["status"], row["idempotency_key"]) for row in rows] == (
        [(2, "QUEUED", "k")] if is_due else []
    )
    assert all(59 < row["delay"].total_seconds() < 61 for row in rows)


@pytest.mark.parametrize(
    ("job", "attempt", "delay_s"),
    [
        ({"rerun_lost": True, "max_attempts": 4, "retry_delays": [60, 300]}, 1, 60),
        ({"rerun_lost": True, "max_attempts": 4, "retry_delays": [60, 300]}, 3, 300),
        ({"rerun_lost": True, "max_attempts": 4, "retry_delays": []}, 1, 0),
        ({"rerun_lost": False, "max_attempts": 4}, 1, None),
        ({"rerun_lost": True, "max_attempts": 2}, 2, None),
    ],
)
def test_rule_12_the_reaper_repeats_only_what_may_be_repeated(
    rig: Rig, job: dict[str, Any], attempt: int, delay_s: int | None
) -> None:
    rig.job("a", "EchoJob", **job)
    lost = add(rig, status="RUNNING", worker_id=THEIRS, attempt=attempt, lease_expires_at=moment(rig, -1))
    alive = add(rig, status="RUNNING", worker_id=THEIRS)
    assert rig.reap() == [lost]
    assert states(rig, lost, alive) == [("LOST", None), ("RUNNING", None)]
    rows = rig.sql("SELECT attempt, not_before - queued_at AS delay FROM job_logs WHERE retry_of = $1", lost)
    assert [(row["attempt"], round(row["delay"].total_seconds())) for row in rows] == (
        [] if delay_s is None else [(attempt + 1, delay_s)]
    )


def test_rule_18_of_two_retries_at_once_one_is_refused(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    run_id = add(rig, status="FAILURE")

    async def both() -> list[Any]:
        async with rig.db.transaction() as connection:
            await connection.execute("SELECT FROM jobs FOR UPDATE")  # both have looked before either inserts
            tries = [asyncio.create_task(requests.retry_run(rig.db, run_id, actor=LI)) for _ in range(2)]
            async with asyncio.timeout(10):
                while await rig.db.fetchval(_WAITING) < 2:  # noqa: ASYNC110  # locks have no signal
                    await asyncio.sleep(0.01)
        return await asyncio.gather(*tries, return_exceptions=True)

    results = rig.do(both())
    assert sorted(type(result).__name__ for result in results) == [RefusedError.__name__, "int"]
    assert len(rig.sql("SELECT FROM job_logs WHERE trigger = 'retry'")) == 1


def test_rule_18_the_key_of_a_persons_run_repeats_no_row_id(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    keys = [rig.row(rig.run("a"))["idempotency_key"] for _ in range(2)]
    assert keys[0] != keys[1]
    assert all(re.fullmatch("a:run:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key) for key in keys)


def test_rule_19_a_hub_gives_back_only_what_is_its_own_and_has_not_begun(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    mine, begun = (add(rig, status="RUNNING", worker_id=OURS) for _ in range(2))
    theirs = add(rig, status="RUNNING", worker_id=THEIRS)
    unwanted = add(rig, status="RUNNING", worker_id=OURS, cancel_requested_at=moment(rig))
    ended = add(rig, status="SUCCESS", worker_id=OURS)
    rig.do(runs.release(rig.db, OURS, [begun]))
    assert states(rig, mine, begun, theirs, unwanted, ended) == [
        ("QUEUED", None),
        ("RUNNING", None),
        ("RUNNING", None),
        ("CANCELLED", "cancelled"),
        ("SUCCESS", None),
    ]
    assert rig.row(theirs)["worker_id"] == THEIRS and rig.row(unwanted)["finished_at"] is not None


def test_an_end_that_is_refused_does_not_hold_up_the_others(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    bad, good = add(rig), add(rig)
    claim(rig)

    async def store() -> list[int]:
        stored: list[Unstored] = []
        endings = Endings(rig.db, OURS, Spool(rig.settings.data_dir / "spool", OURS), stored.append)
        endings.put(Ending(bad, "SUCCESS", result="no json"))
        endings.put(Ending(good, "SUCCESS", result="{}"))
        async with asyncio.timeout(10):
            await endings.flush()
        await endings.stop(1)
        return [ending.id for ending in stored]

    assert sorted(rig.do(store())) == [bad, good]
    assert states(rig, bad, good) == [("FAILURE", "exception"), ("SUCCESS", None)]
    assert "could not be stored" in rig.row(bad)["message"]


def test_rule_1_a_stopped_hub_holds_no_locks_for_long(rig: Rig) -> None:
    assert rig.sql("SHOW idle_in_transaction_session_timeout")[0][0] == "10s"


def test_promise_1_one_run_per_fire_time_and_one_next_attempt(rig: Rig) -> None:
    rig.job("a", "EchoJob")
    fire = moment(rig)
    first = add(rig, trigger="schedule", scheduled_for=fire)
    with pytest.raises(asyncpg.UniqueViolationError, match="job_logs_fire"):
        add(rig, status="SKIPPED", trigger="schedule", scheduled_for=fire)
    add(rig, trigger="schedule", scheduled_for=fire, attempt=2, retry_of=first)
    with pytest.raises(asyncpg.UniqueViolationError, match="job_logs_next_attempt"):
        add(rig, trigger="schedule", scheduled_for=fire, attempt=2, retry_of=first)
    add(rig, trigger="retry", scheduled_for=fire, retry_of=first)


def test_rule_6_a_claim_that_goes_on_behind_a_run_takes_only_what_is_like_it(rig: Rig) -> None:
    rig.job("a", "EchoJob", overlap="allow")
    scheduled = {"trigger": "schedule"}
    first, second = add(rig, **scheduled), add(rig, **scheduled)
    add(rig, priority=1, **scheduled)
    persons = [add(rig), add(rig)]

    def behind(run_id: int, trigger: str) -> list[int]:
        last = Claim(run_id, "a", 1, trigger, None, 1, "k", None, False, moment(rig), moment(rig))
        return [one.id for one in rig.do(runs.claim(rig.db, OURS, LEASE_S, 9, behind=last))]

    assert behind(first, "schedule") == [second]
    assert behind(persons[0], "manual") == [persons[1]]


def test_ends_that_are_stored_together_keep_what_each_of_them_says(rig: Rig) -> None:
    """Promise 4: also where one of them says nothing of what the other tells."""
    rig.job("a", "EchoJob")
    first, second = add(rig), add(rig)
    assert claim(rig) == [first, second]
    said: dict[str, Any] = {
        "message": "no answer",
        "traceback": "Traceback",
        "run_log": "line",
        "result": '{"n": 1}',
    }
    told = Ending(first, "FAILURE", "exception", progress='{"done": 1}', retry_delay_s=5, **said)
    rig.do(runs.store_endings(rig.db, OURS, [told, Ending(second, "SUCCESS")]))
    rows = [dict(rig.row(run_id)) for run_id in (first, second)]
    assert [row["status"] for row in rows] == ["FAILURE", "SUCCESS"]
    assert rows[0] == rows[0] | said | {"reason": "exception", "progress": '{"done": 1}'}
    assert rows[1] == rows[1] | dict.fromkeys([*said, "reason", "progress"])
