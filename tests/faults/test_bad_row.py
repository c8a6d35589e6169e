"""A Job that was broken by SQL fails alone."""

from __future__ import annotations

from functools import partial

import asyncpg
import pytest

from tests.faults.stage import Stage

BROKEN: dict[str, tuple[str, dict[str, object]]] = {
    "cron": ("bad_schedule", {"cron_expr": "61 * * * *"}),
    "zone": ("bad_schedule", {"timezone": "Mars/Base"}),
    "never": ("bad_schedule", {"cron_expr": "0 0 30 2 *"}),
    "handler": ("bad_handler", {"handler_path": "tests.faults.nowhere:Job"}),
    "outside": ("bad_handler", {"handler_path": "os:system"}),
    "token": ("bad_secret", {"secret_cfg": "gAAAAABcut"}),
    "foreign": ("bad_secret", {"secret_cfg": "no token at all"}),
}


def first_end(stage: Stage, job_id: str) -> list[asyncpg.Record]:
    return stage.sql(
        "SELECT status, reason, message FROM job_logs WHERE job_id = $1 AND finished_at IS NOT NULL"
        " ORDER BY id LIMIT 1",
        job_id,
    )


@pytest.mark.ci
def test_one_bad_row_fails_alone_with_its_reason(stage: Stage) -> None:
    for number in range(20):
        stage.job(f"good-{number}", "AsyncJob", cron_expr="* * * * *", misfire="all")
    for name, (_, columns) in BROKEN.items():
        stage.job(f"bad-{name}", "AsyncJob", cron_expr="* * * * *", misfire="all")
        assignments = ", ".join(f"{column} = ${index}" for index, column in enumerate(columns, 2))
        stage.sql(f"UPDATE jobs SET {assignments} WHERE id = $1", f"bad-{name}", *columns.values())
    stage.make_due(0)
    stage.hub()
    stage.until(lambda: stage.value("SELECT count(*) >= 20 FROM job_logs WHERE status = 'SUCCESS'"))
    for name, (reason, _) in BROKEN.items():
        row = stage.until(partial(first_end, stage, f"bad-{name}"))[0]
        assert row["reason"] == reason and row["status"] in ("SKIPPED", "FAILURE"), (name, row)
    errors = stage.sql("SELECT id FROM jobs WHERE schedule_error IS NOT NULL ORDER BY id")
    assert [row["id"] for row in errors] == ["bad-cron", "bad-never", "bad-zone"]
    # At another minute mark they are queued once more.
    good = (
        "SELECT count(*) FROM job_logs WHERE job_id LIKE 'good-%'"
        " AND status NOT IN ('SUCCESS', 'QUEUED', 'RUNNING')"
    )
    stage.settle()
    assert stage.value(good) == 0
