"""The design that the hub takes the place of: Celery with Redis, a beat that asks croniter of every Job, a
JobLog that each run inserts and updates through the ORM. Needs the extra `[bench]` and redis-server.

Run as a module it is a Celery application: `celery -A tests.benchmarks.old_design worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from celery import Celery
from croniter import croniter
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.benchmarks.pace import paced
from tests.benchmarks.peers import A_SECOND, STARTS, each_once, memory_mib

if TYPE_CHECKING:
    from tests.benchmarks.bench import Bench

JOBS, DUE = 10_000, 100  # row 3
_EACH_MINUTE, _DAILY = "* * * * *", "0 3 * * *"
_MARK = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_DSN = "OLD_DESIGN_DSN"
_REDIS = "OLD_DESIGN_REDIS"
app = Celery("old", broker=os.environ.get(_REDIS, ""), backend=None)
app.conf.task_ignore_result = True


class _Base(DeclarativeBase):
    pass


class OldJob(_Base):
    """A definition."""

    __tablename__ = "old_jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool]
    cron_expr: Mapped[str]


class OldLog(_Base):
    """The record of a run."""

    __tablename__ = "old_joblogs"
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    status: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


_engines: dict[int, Engine] = {}


def _engine() -> Engine:
    """One for each process: the workers fork."""
    dsn = os.environ[_DSN].replace("postgresql://", "postgresql+psycopg://")
    return _engines.setdefault(os.getpid(), create_engine(dsn))


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def run_job(job_id: str) -> None:
    """One run: its JobLog is inserted, the plugin does nothing, the JobLog is updated."""
    with Session(_engine()) as session:
        job = session.get_one(OldJob, job_id)
        log = OldLog(job_id=job.id, status="RUNNING", started_at=datetime.now())
        session.add(log)
        session.commit()
        log.status, log.finished_at = "SUCCESS", datetime.now()
        session.commit()


def _tick(now: datetime) -> None:
    """What beat does each minute."""
    with Session(_engine()) as session:
        for job in session.scalars(select(OldJob).where(OldJob.enabled)):
            due = croniter(job.cron_expr, now - timedelta(minutes=1)).get_next(datetime)
            if due <= now:
                run_job.delay(job.id)


@contextmanager
def _running(bench: Bench, crons: list[str]) -> Iterator[list[int]]:
    """Redis, a worker that is warm and a beat, with a Job for each of `crons`; the ids of the three processes.

    This beat has no schedule: who measures calls `_tick`.
    """
    folder = bench.folder / "old"  # one for all: Celery keeps its connections for the next time
    folder.mkdir(exist_ok=True)
    os.environ[_REDIS], os.environ[_DSN] = f"redis+socket://{folder}/redis.sock", bench.postgres.dsn
    app.conf.broker_url = os.environ[_REDIS]
    _Base.metadata.create_all(_engine())
    with Session(_engine()) as session:
        session.add_all(OldJob(id=f"job-{n}", enabled=True, cron_expr=cron) for n, cron in enumerate(crons))
        session.commit()
    celery = (sys.executable, "-m", "celery", "-A", "tests.benchmarks.old_design")
    with ExitStack() as stack:
        stack.callback(_Base.metadata.drop_all, _engine())
        redis = ("redis-server", "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--save", "")
        processes = [_start(stack, folder, *redis)]
        bench.until((folder / "redis.sock").exists)
        processes.append(_start(stack, folder, *celery, "worker", "--loglevel", "WARNING"))
        processes.append(_start(stack, folder, *celery, "beat", "--schedule", f"{folder}/beat"))
        warm = min(len(crons), STARTS)
        _runs(warm, lambda: [run_job.delay(f"job-{number}") for number in range(warm)])
        yield processes


def _start(stack: ExitStack, folder: Path, *command: str) -> int:
    """The id of a process, which ends with the stack."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "output.log").open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return process.pid


def _runs(count: int, begin: Callable[[], object]) -> Sequence[OldLog]:
    """The records of what `begin` starts, so many runs, once all have ended; each Job must have run once.

    Until the last has begun it looks only at the newest, ten times a second, for who counts takes time from them.
    """
    with Session(_engine(), expire_on_commit=False) as session:
        session.execute(text("TRUNCATE old_joblogs RESTART IDENTITY"))
        session.commit()
        begin()
        begun, ended = func.max(OldLog.id), func.count(OldLog.finished_at)
        deadline = time.monotonic() + 600
        while (session.scalar(select(begun)) or 0) < count or session.scalar(select(ended)) != count:
            session.commit()
            if time.monotonic() > deadline:
                raise AssertionError(f"{count} runs of the old design did not end within 10 minutes")
            time.sleep(0.1)
        rows = session.scalars(select(OldLog).where(OldLog.status == "SUCCESS")).all()
        each_once([row.job_id for row in rows], count)
        return rows


def drain(bench: Bench, due: int) -> float:
    """Runs a second, from the begin of the tick to the last SUCCESS, of `due` Jobs that are due at once."""
    with _running(bench, [_EACH_MINUTE] * due):
        begun = datetime.now()
        rows = _runs(due, lambda: _tick(_MARK))
    return due / (max(row.finished_at for row in rows if row.finished_at) - begun).total_seconds()


class Rest(NamedTuple):
    """Seconds of ticks, milliseconds from enqueue to start, and MiB of all processes."""

    ticks: list[float]
    starts: list[float]
    memory: float


def rest(bench: Bench, times: int) -> Rest:
    """With 10,000 Jobs, of which 1 % is due."""
    crons = [_DAILY if number % (JOBS // DUE) else _EACH_MINUTE for number in range(JOBS)]
    with _running(bench, crons) as processes:
        starts = _starts()
        memory = sum(memory_mib(pid, "Pss") for pid in _families(processes))
        return Rest([_tick_seconds() for _ in range(times)], starts, memory)


def _tick_seconds() -> float:
    """Until all that is due has been sent."""
    took = 0.0

    def tick() -> None:
        nonlocal took
        begun = time.perf_counter()
        _tick(_MARK)
        took = time.perf_counter() - begun

    _runs(DUE, tick)
    return took


def _starts() -> list[float]:
    """Milliseconds from each enqueue to the start of the run, by its record; 20 a second."""
    sent: dict[str, float] = {}

    def send() -> None:
        for number, at in enumerate(paced(time.time(), A_SECOND, STARTS)):
            sent[f"job-{number}"] = at
            run_job.delay(f"job-{number}")

    rows = _runs(STARTS, send)
    return [(row.started_at.timestamp() - sent[row.job_id]) * 1000 for row in rows]


def _families(pids: list[int]) -> Iterator[int]:
    """Processes and what they have forked."""
    for pid in pids:
        yield pid
        for forked in Path(f"/proc/{pid}/task").glob("*/children"):
            yield from map(int, forked.read_text().split())
