"""Adoption from each age, with what an installation has around its database, and at a million runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest
from markupsafe import escape

from connecthub.errors import DatabaseError
from connecthub.storage.pending import migrate
from connecthub.web.paths import listed as in_a_form
from connecthub.web.paths import segment
from tests.installation import Site
from tests.program import Person, Program
from tests.test_adoption import JOBS, KEY, OA, check_adopted, load, sql

RUNS, AT_MOST_S = 1_000_000, 600.0
CANARY = "canary-old-"


@pytest.mark.parametrize(("age", "has_running"), [("1_first", False), ("2_running", True)])
def test_older_ages_are_adopted_too(bare: str, age: str, has_running: bool) -> None:
    load(bare, age)
    asyncio.run(migrate(bare))
    check_adopted(bare, has_running=has_running, has_log=False)
    # The way back, and there again.
    sql(bare, "DROP SCHEMA public CASCADE", "ALTER SCHEMA before_connecthub RENAME TO public")
    asyncio.run(migrate(bare))
    check_adopted(bare, has_running=has_running, has_log=False)


def test_an_old_system_that_still_runs_is_not_adopted_under_its_feet(bare: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(bare)
        async with connection.transaction():
            await connection.execute("INSERT INTO job_logs (job_id, status) VALUES ('oa-sync', 'SUCCESS')")
            with pytest.raises(DatabaseError, match="stop all of it, its workers too"):
                await migrate(bare)
        assert await connection.fetchval("SELECT count(*) FROM job_logs") == 19
        await connection.close()

    load(bare, "2_running")
    asyncio.run(work())


@pytest.mark.ci
def test_a_whole_installation_goes_on_with_its_own_key_file(bare: str, tmp_path: Path) -> None:
    load(bare, "3_run_log")
    here = f"replace(snapshot_params::text, '{OA}', 'checkjobs.job:GoodJob')::json"
    sql(bare, f"UPDATE job_logs SET snapshot_params = {here}", "SELECT 1")
    site = Site(tmp_path, bare)
    key = site.data / "fernet.key"
    key.unlink()
    key.write_bytes(KEY + b"\n")
    key.chmod(0o644)
    site.environ["CONNECTHUB_DATABASE__URL"] = bare.replace("postgresql://", "postgresql+psycopg2://")
    asyncio.run(migrate(bare))
    said = site.command("key", "show").stderr
    assert f"chmod 600 {key}" in said and said.count("\n") == 1
    key.chmod(0o600)
    settings = {name: value for name, value in site.environ.items() if name.startswith("CONNECTHUB_")}
    with Program(tmp_path, settings) as program, Person(program.url) as person:
        person.sign_in(program.password)
        assert "oa-sync" in person.get("/admin/jobs/list").text
        shown = site.command("job", "show", "oa-sync", "--json")
        assert '"secret_keys": ["token"]' in shown.stdout
        again = site.command(
            "run", "retry", "1", "--wait", "--json"
        )  # with the definition and secrets of then
        assert again.returncode == 0 and '"trigger": "retry"' in again.stdout, again
    checked = site.command("check").stdout
    assert "ok       secrets: " in checked and "Job list (disabled)" in checked
    assert CANARY not in checked + shown.stdout + "".join(program.lines)


def test_ids_of_old_work_in_every_page_and_route(bare: str, tmp_path: Path) -> None:
    load(bare, "3_run_log")
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "fernet.key").write_bytes(KEY)
    (tmp_path / "data" / "fernet.key").chmod(0o600)
    with Program(tmp_path, {"CONNECTHUB_DATABASE__URL": bare}) as program, Person(program.url) as person:
        person.sign_in(program.password)
        assert person.post("/admin/pause").status_code == 303  # what is started below waits, to be cancelled
        ids = [row["id"] for row in sql(bare, "SELECT id FROM jobs")]
        assert len(ids) == JOBS
        for run_id in range(1, 19):
            assert f"#{run_id}" in person.get(f"/admin/joblogs/details/{run_id}").text
        for job_id in ids:
            use(person, bare, job_id)
    assert not sql(bare, "SELECT FROM jobs")


def use(person: Person, dsn: str, job_id: str) -> None:
    """All that a person may do to a Job, and its deletion at last."""
    path, shown, field = segment(job_id), str(escape(job_id)), in_a_form([job_id])
    listed = person.get("/admin/jobs/list", params={"q": job_id})
    assert listed.status_code == 200 and f"/admin/jobs/details/{path}" in listed.text
    for page in (f"jobs/details/{path}", f"jobs/edit/{path}", f"jobs/{path}/run"):
        answer = person.get(f"/admin/{page}")
        assert answer.status_code == 200 and shown in answer.text, page
    for tab in ("runs", "revisions", "why"):
        assert person.get(f"/admin/jobs/details/{path}", params={"tab": tab}).status_code == 200
    assert shown in person.get("/admin/joblogs/list", params={"job": job_id}).text
    started = person.post(f"/admin/jobs/{path}/run")
    assert started.status_code == 303, started.text
    run_id = int(started.headers["location"].rpartition("/")[2])
    assert shown in person.get(f"/admin/joblogs/details/{run_id}").text
    assert person.post(f"/admin/joblogs/{run_id}/cancel").status_code == 303
    assert person.post(f"/admin/joblogs/{run_id}/retry").status_code == 303
    assert person.post(f"/admin/joblogs/{run_id + 1}/cancel").status_code == 303
    for action, enabled in (("disable", False), ("enable", True)):
        assert person.post(f"/admin/jobs-bulk/{action}", data={"ids": field}).status_code == 303
        row = sql(dsn, "SELECT id, enabled FROM jobs")
        assert {one["id"]: one["enabled"] for one in row}[job_id] is enabled
    assert person.post(f"/admin/jobs/restore/1/{path}", data={"revision": "0"}).status_code == 409
    assert shown in person.get("/admin/jobs-bulk/confirm", params={"action": "delete", "id": field}).text
    deleted = person.post(f"/admin/jobs/delete/{path}", data={"typed": job_id})
    assert deleted.status_code == 303, deleted.text


def test_a_million_runs_are_adopted_within_bounds(bare: str) -> None:
    load(bare, "3_run_log")
    sql(
        bare,
        "INSERT INTO job_logs (job_id, status, message, run_log, snapshot_params, celery_task_id, attempt,"
        " started_at, finished_at)"
        " SELECT l.job_id, l.status, repeat('m', 200), repeat('a line of a log' || chr(10), 20),"
        " l.snapshot_params, 'task-' || n, 1, timestamp '2024-01-01' + n * interval '1 minute',"
        " timestamp '2024-01-01' + n * interval '1 minute'"
        f" FROM generate_series(1, {RUNS}) n, job_logs l WHERE l.id = 1 + n % 4",
        "SELECT 1",
    )
    begun = time.monotonic()
    asyncio.run(migrate(bare))
    took = time.monotonic() - begun
    print(f"{RUNS} runs were adopted in {took:.0f} s")
    assert took < AT_MOST_S
    assert sql(bare, "SELECT count(*) FROM job_logs")[0][0] == RUNS + 18
