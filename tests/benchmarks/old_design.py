"""The design that the hub takes the place of: Celery with Redis, a beat that asks croniter of every Job, a
JobLog that each run inserts and updates through the ORM. Needs the extra `[bench]` and redis-server.

Run as a module it is a Celery application: `celery -A tests.benchmarks.old_design worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery
from croniter import croniter
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

if TYPE_CHECKING:
    from tests.benchmarks.bench import Bench

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


def drain(bench: Bench, due: int) -> float:
    """Runs a second, from the tick to the last SUCCESS, of `due` Jobs that are due at once."""
    folder = bench.folder / "old"  # one for all: Celery keeps its connections for the next time
    folder.mkdir(exist_ok=True)
    redis = subprocess.Popen(
        [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            f"{folder}/redis.sock",
            "--save",
            "",
            "--dir",
            str(folder),
        ],
        stdout=subprocess.DEVNULL,
    )
    bench.until((folder / "redis.sock").exists)
    os.environ[_REDIS], os.environ[_DSN] = f"redis+socket://{folder}/redis.sock", bench.postgres.dsn
    app.conf.broker_url = os.environ[_REDIS]
    _Base.metadata.create_all(_engine())
    with Session(_engine()) as session:
        session.add_all(OldJob(id=f"job-{n}", enabled=True, cron_expr="* * * * *") for n in range(due))
        session.commit()
    worker = _start_worker(folder)
    try:
        _ended(1, lambda: run_job.delay("job-0"))
        begun = time.perf_counter()
        _ended(due + 1, lambda: _tick(datetime.now(UTC).replace(second=0, microsecond=0)))
        return due / (time.perf_counter() - begun)
    finally:
        for process in (worker, redis):
            process.terminate()
            process.wait(30)
        _Base.metadata.drop_all(_engine())


def _start_worker(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "worker.log").open("wb") as output:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tests.benchmarks.old_design",
                "worker",
                "--loglevel",
                "WARNING",
            ],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _ended(count: int, begin: Any) -> None:
    begin()
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        with Session(_engine()) as session:
            if (session.scalar(select(func.count()).where(OldLog.status == "SUCCESS")) or 0) >= count:
                return
        time.sleep(0.02)
    raise AssertionError(f"{count} runs of the old design did not end within 10 minutes")
