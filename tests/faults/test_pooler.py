"""PgBouncer in transaction mode between hub and server: no session of one's own, so no LISTEN."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.faults.conftest import needs
from tests.faults.stage import Hub, Stage

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """A PgBouncer with few sessions before the stage's server."""

    def __init__(self, stage: Stage, program: str) -> None:
        self._program = program
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"postgresql://connecthub@127.0.0.1:{self.port}/connecthub?sslmode=disable"
        self._stage = stage
        self._config = stage.folder / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\nconnecthub = host=127.0.0.1 port={stage.proxy().port} user=connecthub\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nserver_login_retry = 1\n"
        )
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        words = [*(["-u", "nobody"] if os.geteuid() == 0 else []), str(self._config)]
        with (self._stage.folder / "pgbouncer.log").open("a") as output:
            self._process = subprocess.Popen([self._program, *words], stdout=output, stderr=output)
        self._stage.until(self._answers, 10)

    def stop(self) -> None:
        """All its connections end with it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@pytest.fixture
def pooler(stage: Stage) -> Iterator[Pooler]:
    needs("pgbouncer", PROGRAM is not None)
    pooler = Pooler(stage, PROGRAM or "")
    yield pooler
    pooler.stop()


def hub_behind(stage: Stage, pooler: Pooler, **environ: str) -> Hub:
    return stage.hub(None, CONNECTHUB_DATABASE__URL=pooler.url, **environ)


@pytest.mark.ci
def test_polling_alone_is_enough(stage: Stage, pooler: Pooler) -> None:
    until = stage.folder / "until"
    stage.job("waits", "WaitForFileJob", {"until": str(until), "says": "a line of its log"})
    hub = hub_behind(stage, pooler)
    stage.job("minute", "AsyncJob", cron_expr="* * * * *")
    first = stage.first_mark("minute")
    person = hub.person()
    assert person.post("/admin/jobs/waits/run").status_code == 303
    [begun] = stage.until(lambda: [line for line in stage.told("begin") if line["job_id"] == "waits"], 10)
    run_id = begun["run_id"]
    stage.until(lambda: "a line of its log" in person.get(f"/admin/joblogs/details/{run_id}").text, 10)
    assert stage.row(run_id)["status"] == "RUNNING"
    other = hub_behind(stage, pooler)
    assert other.person().post(f"/admin/joblogs/{run_id}/cancel").status_code == 303
    row = stage.wait(run_id, "CANCELLED", seconds=15)
    assert row["reason"] == "cancelled" and stage.told("stopped")
    stage.until(lambda: stage.value("SELECT count(*) FROM job_logs WHERE job_id = 'minute'"), 90)
    fired = stage.sql("SELECT *, queued_at - scheduled_for AS late FROM job_logs WHERE job_id = 'minute'")[0]
    assert fired["scheduled_for"] == first and fired["late"] < timedelta(seconds=1)
    began = stage.wait(fired["id"])["started_at"] - first
    listening = stage.value("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'listen%'")
    assert hub.stop() == other.stop() == listening == 0
    verdict = stage.judge(stage.fires(first))
    print({"begun_s": began.total_seconds()})
    assert verdict.is_clean and verdict.lost == 0 and began < timedelta(seconds=4), dict(verdict.faults)


def test_a_pooler_that_is_restarted(stage: Stage, pooler: Pooler) -> None:
    for number in range(10):
        stage.job(f"job-{number}", "ThreadJob", {"seconds": 2}, cron_expr="* * * * *", misfire="all")
    first = stage.make_due(2)
    hub_behind(stage, pooler)
    stage.until(lambda: stage.told("begin"))
    pooler.stop()
    stage.until(lambda: stage.told("end"))
    pooler.start()
    stage.until(lambda: stage.value("SELECT count(*) >= 30 FROM job_logs WHERE status = 'SUCCESS'"), 60)
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean and verdict.lost == 0, dict(verdict.faults)


def test_a_hub_that_sleeps_in_its_tick_holds_no_lock_for_long(stage: Stage, pooler: Pooler) -> None:
    stage.job("a", "AsyncJob", cron_expr="* * * * *", misfire="all")
    first = stage.make_due(2)
    sleeper = hub_behind(stage, pooler, CONNECTHUB_FAILPOINT="tick.before_commit:stop")
    held = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    stage.until(lambda: stage.value(held))
    stage.until(lambda: not stage.value(held), 15)
    hub_behind(stage, pooler)
    stage.until(lambda: stage.value("SELECT count(*) >= 3 FROM job_logs WHERE status = 'SUCCESS'"), 20)
    sleeper.kill(signal.SIGCONT)
    due = stage.fires(first)
    stage.settle()
    verdict = stage.judge(due)
    assert verdict.is_clean and verdict.lost == 0, dict(verdict.faults)
