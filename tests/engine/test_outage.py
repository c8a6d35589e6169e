"""The database goes away while runs end, and comes back: what they returned is stored, whoever is left."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.engine import endings
from connecthub.engine.endings import Endings
from connecthub.engine.looper import backoff
from connecthub.engine.spool import Spool, Unstored
from connecthub.storage import runs
from connecthub.storage.database import Database
from connecthub.storage.late import LateReturn
from connecthub.storage.runs import Ending
from tests.engine import sample_jobs
from tests.engine.conftest import Rig
from tests.faults.proxy import Proxy

CANARY = "canary-7d1f42c9"


class Outage:
    """The rig's database takes no connections, and has none, while `begun` and not `over`."""

    def __init__(self, server: str, dsn: str) -> None:
        self._server = server
        self._name = urlsplit(dsn).path.removeprefix("/")

    def begin(self) -> None:
        self._do(
            f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS false',
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'",
        )

    def end(self) -> None:
        self._do(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS true')

    def _do(self, *statements: str) -> None:
        async def act() -> None:
            connection = await asyncpg.connect(self._server)
            for statement in statements:
                await connection.execute(statement)
            await connection.close()

        asyncio.run(act())


@pytest.fixture
def outage(server: str, rig: Rig) -> Iterator[Outage]:
    outage = Outage(server, rig.dsn)
    yield outage
    outage.end()


@contextmanager
def a_run_returns_during(outage: Outage, rig: Rig, **job: object) -> Iterator[int]:
    """A run that returns in the outage, which goes on in the block; its id."""
    rig.job("a", "HoldJob", secrets={"token": CANARY}, **job)
    run_id = rig.run("a", secret=CANARY)
    assert sample_jobs.begun.wait(10)
    outage.begin()
    sample_jobs.released.set()
    yield run_id


def spool(rig: Rig) -> list[Path]:
    return sorted((rig.settings.data_dir / "spool").glob("*.jsonl"))


def test_an_end_waits_on_disk_for_the_database(hub: Rig, outage: Outage) -> None:
    with a_run_returns_during(outage, hub) as run_id:
        [file] = hub.until(lambda: spool(hub))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        hub.until(lambda: file.read_bytes().endswith(b"\n"))
        assert json.loads(file.read_text())["id"] == run_id and CANARY not in file.read_text()
        said = hub.until(lambda: hub.hubs[0][0].readiness()["spool"])
        assert said == "1 ends of runs wait for the database"
        outage.end()
    row = hub.wait(run_id, "SUCCESS")
    assert row["status"] == "SUCCESS" and json.loads(row["result"]) == {"held": True}
    hub.until(lambda: not spool(hub))


def test_the_next_start_stores_what_the_last_hub_left(
    hub: Rig, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    with a_run_returns_during(outage, hub) as run_id:
        [file] = hub.until(lambda: spool(hub))
        hub.stop_hub()
        left = file.read_bytes()
        outage.end()
    file.write_bytes(left + b'{"id": 1, "sta')  # its hub died while it wrote the next one
    assert hub.row(run_id)["status"] == "RUNNING"
    hub.start_hub()
    row = hub.wait(run_id, "SUCCESS")
    assert row["status"] == "SUCCESS" and row["lease_expires_at"] is None
    hub.until(lambda: not spool(hub))
    assert "cannot be read" in caplog.text

    file.write_bytes(left)  # replayed once more, by a hub that died before it could delete the file
    hub.until(lambda: not spool(hub))
    assert dict(hub.row(run_id)) == dict(row)


def test_of_many_large_ends_that_a_hub_left_all_are_stored_a_few_at_a_time(rig: Rig) -> None:
    for number in range(4):
        rig.job(f"job-{number}", "CountedJob")
        rig.run(f"job-{number}")
    dead = uuid4()
    ids = [claim.id for claim in rig.do(runs.claim(rig.db, dead, 60, 4))]
    left = Spool(rig.settings.data_dir / "spool", dead)
    left.write([Ending(run_id, "SUCCESS", run_log="x" * 400_000) for run_id in ids])
    left.close()
    rig.start_hub()
    rig.until(lambda: not spool(rig))
    assert {rig.row(run_id)["status"] for run_id in ids} == {"SUCCESS"}
    together = rig.sql("SELECT count(*) FROM job_logs GROUP BY xmin")
    assert [row["count"] for row in together] == [2, 2]


def test_a_hub_goes_on_while_it_reads_what_another_left(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long outage that may take longer than a lease lasts."""
    waits: list[bool] = []

    def read(fields: dict[str, Any]) -> Unstored:
        is_free = threading.Event()
        rig.loop.call_soon_threadsafe(is_free.set)
        waits.append(is_free.wait(5))
        return LateReturn(**fields)

    monkeypatch.setattr("connecthub.engine.spool._ending", read)
    left = Spool(rig.settings.data_dir / "spool", uuid4())
    left.write([LateReturn(1, None, "{}")])
    left.close()
    rig.start_hub()
    rig.until(lambda: not spool(rig))
    assert waits == [True]


def test_a_living_hubs_file_is_its_own(hub: Rig, outage: Outage) -> None:
    with a_run_returns_during(outage, hub) as run_id:
        [file] = hub.until(lambda: spool(hub))
        with Spool(file.parent, uuid4()).left_behind() as left:
            assert not left and file.exists()
        outage.end()
    assert hub.wait(run_id, "SUCCESS")["status"] == "SUCCESS"


@pytest.mark.skipif(sys.platform == "darwin", reason="looks at /proc for what waits for a lock")
def test_a_file_that_another_hub_took_away_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    """Between its making and its lock, a file looks like one that a dead hub left."""
    hub, path = uuid4(), tmp_path / "spool"
    path.mkdir()
    file = path / f"{hub}.jsonl"
    file.touch()
    late = LateReturn(1, None, "{}")
    with ThreadPoolExecutor(1) as pool:
        with Spool(path, uuid4()).left_behind() as left:
            assert [(worker, list(ends)) for worker, ends in left] == [(hub, [])]
            spool = Spool(path, hub)
            writing = pool.submit(spool.write, [late])
            while list(open_files()).count(str(file)) < 2:
                assert not writing.done()
        writing.result(10)
    assert len(file.read_text().splitlines()) == 1
    spool.close()
    with Spool(path, uuid4()).left_behind() as left:
        assert [(worker, list(ends)) for worker, ends in left] == [(hub, [late])]


def open_files() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{number}")


def test_rule_12_a_hub_that_is_cut_off_stops_what_another_may_run_again(hub: Rig, outage: Outage) -> None:
    hub.job("a", "WaitJob", rerun_lost=True, max_attempts=2, retry_delays=[0])
    run_id = hub.run("a")
    hub.wait(run_id, "RUNNING")
    hub.until(lambda: hub.row(run_id)["started_at"])
    outage.begin()
    held = hub.hubs[0][0].held[run_id]
    lease_ends = held.lease_until
    hub.until(lambda: held.returned)
    assert held.stop_reason == "lost" and held.lease_until == lease_ends
    outage.end()
    row = hub.wait(run_id, "LOST")
    hub.until(lambda: "cut off" in json.loads(hub.row(run_id)["meta"]).get("detail", ""))
    again = hub.until(lambda: hub.sql("SELECT * FROM job_logs WHERE retry_of = $1", run_id))
    assert again[0]["attempt"] == 2 and row["reason"] is None


def test_without_rerun_lost_a_run_goes_on_through_the_outage(hub: Rig, outage: Outage) -> None:
    hub.job("a", "HoldJob")
    run_id = hub.run("a")
    assert sample_jobs.begun.wait(10)
    outage.begin()
    held = hub.hubs[0][0].held[run_id]
    hub.until(lambda: held.lease_until < boottime())
    outage.end()
    hub.until(lambda: held.lease_until > boottime())
    sample_jobs.released.set()
    row = hub.wait(run_id, "SUCCESS", "FAILURE", "CANCELLED")
    assert row["status"] == "SUCCESS" and json.loads(row["result"]) == {"held": True}


def test_a_hub_that_waits_for_the_database_does_not_stand_still(outage: Outage, rig: Rig) -> None:
    """Its watchdog is fed: a new start would end what runs, and help nothing."""
    hub = rig.start_hub()
    outage.begin()
    begun, patience = boottime(), 120 + rig.settings.pool.lease_s
    # Both have gone round since it began; the next tick may be a minute away.
    rig.until(lambda: hub.standstill(begun + patience) is None, timeout_s=80)
    assert "tick has stood still for" in str(hub.standstill(boottime() + patience + 60))


def test_what_has_failed_all_night_is_tried_again_in_the_morning(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait is twice as long as the last one, up to a bound; the number itself had none."""
    tries: list[str] = []
    monkeypatch.setattr(endings, "_SLOWEST_S", 0.0)
    monkeypatch.setattr(failpoints, "passing", tries.append)

    async def fail() -> Endings:
        db = await Database.open(rig.dsn)
        await db.close()
        waiting = Endings(db, uuid4(), Spool(rig.settings.data_dir, uuid4()), lambda stored: None)
        waiting.put(Ending(1, "SUCCESS"))
        return waiting

    waiting = rig.do(fail())
    rig.until(lambda: len(tries) > 1100 or waiting._task.done())
    assert not waiting._task.done()
    rig.do(waiting.stop(0))
    assert backoff(1.0, 100_000, 10.0) == 10.0 and backoff(0.5, 1, 10.0) == 1.0


def test_a_hub_whose_notices_get_lost_on_the_way_listens_anew(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that says nothing never learns that nothing can arrive on it."""
    [server] = rig.sql("SELECT current_setting('connecthub.folder') AS folder, current_user AS role")
    [socket] = Path(server["folder"]).glob(".s.PGSQL.*[0-9]")
    proxy, database = Proxy(str(socket)), urlsplit(rig.dsn).path
    rig.dsn = f"postgresql://{server['role']}@127.0.0.1:{proxy.port}{database}?sslmode=disable"
    hub = rig.start_hub()
    deaf = rig.until(lambda: hub._listener)
    proxy.deafen()
    rig.until(lambda: hub._listener not in (None, deaf))
    assert "listener's connection waits for the database" in caplog.text
    rig.stop_hub()
    proxy.close()


def test_a_hub_is_ready_again_once_what_waited_on_disk_is_stored_whatever_comes_after(
    hub: Rig, outage: Outage
) -> None:
    """Under load there is always an end on its way to the database."""
    engine = hub.hubs[0][0]
    ends, on_stored = engine._endings, engine._endings._on_stored

    def another_comes(stored: Unstored) -> None:
        ends.put(Ending(-1, "SUCCESS"))
        on_stored(stored)

    ends._on_stored = another_comes
    with a_run_returns_during(outage, hub) as run_id:
        hub.until(lambda: engine.readiness()["spool"])
        outage.end()
    hub.wait(run_id, "SUCCESS")
    hub.until(lambda: not spool(hub))
    assert engine.readiness()["spool"] is None and len(ends)
    ends._on_stored = on_stored
