"""A newer version migrates the database while this hub runs: it begins nothing more, and says why."""

from __future__ import annotations

import pytest

from tests.engine.conftest import EXPIRED, Rig


def test_a_hub_that_sees_a_newer_schema_begins_nothing_and_says_why(
    hub: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    engine = hub.hubs[0][0]
    hub.until(lambda: engine._ticker.ticked_at)  # its first tick, at the start, knew the schema
    hub.job("people", "CountedJob")
    hub.job("minutely", "CountedJob", cron_expr="* * * * *")
    known = hub.sql("SELECT version_num FROM alembic_version")[0]["version_num"]
    hub.sql("UPDATE alembic_version SET version_num = '9999'")
    run_id = hub.run("people")
    hub.sql("UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp()) WHERE id = 'minutely'")
    assert not hub.do(engine._dispatcher.claim_once())
    hub.do(engine._ticker.tick_once())
    said = hub.until(lambda: engine.readiness()["schema"])
    assert "schema 9999" in said and "start the newer version here" in said
    assert [record for record in caplog.records if "schema 9999" in record.getMessage()]
    assert [(row["id"], row["status"]) for row in hub.sql("SELECT id, status FROM job_logs")] == [
        (run_id, "QUEUED")
    ]
    hub.sql("UPDATE alembic_version SET version_num = $1", known)
    hub.do(engine._ticker.tick_once())
    hub.wait(run_id, "SUCCESS")
    hub.until(lambda: hub.sql("SELECT FROM job_logs WHERE job_id = 'minutely' AND status = 'SUCCESS'"))
    hub.until(lambda: engine.readiness()["schema"] is None)


def test_the_reaper_leaves_the_runs_of_newer_hubs_alone(rig: Rig) -> None:
    rig.job("a", "CountedJob")
    rig.sql(EXPIRED)
    known = rig.sql(
        "UPDATE alembic_version SET version_num = '9999' RETURNING (SELECT version_num FROM alembic_version)"
    )
    assert rig.reap() == []
    rig.sql("UPDATE alembic_version SET version_num = $1", known[0]["version_num"])
    assert len(rig.reap()) == 1
