"""A run's life through the doors of a person: the admin's forms and routes, on the real program."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connecthub.storage.embedded_folder import PidFile
from tests.program import Person, Program

JOBS = "tests.engine.sample_jobs"
ENVIRON = {
    "CONNECTHUB_PLUGINS__PACKAGES": '["extensions", "tests"]',
    "CONNECTHUB_SECURITY__ADMIN_PASSWORD": "a password",
}


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Signed in at a program of the module's own."""
    with Program(tmp_path_factory.mktemp("life"), ENVIRON) as program:
        person = Person(program.url)
        person.sign_in("a password")
        yield person
        assert program.stop() == 0


def create(person: Person, job_id: str, handler: str, **values: str) -> None:
    form = {
        "id": job_id,
        "cron_expr": "0 0 1 1 *",
        "handler_path": f"{JOBS}:{handler}",
        "public_cfg": "{}",
        "secret_cfg": "{}",
    }
    answer = person.fill("/admin/jobs/create", form | values)
    assert answer.status_code in (302, 303), answer.text


def run_now(person: Person, job_id: str) -> int:
    answer = person.post(f"/admin/jobs/{job_id}/run")
    assert answer.status_code == 303, answer.text
    found = re.search(r"/admin/joblogs/details/(\d+)", answer.headers["location"])
    assert found is not None
    return int(found[1])


def wait_for(person: Person, run_id: int, *words: str) -> str:
    """The run's page, as soon as it says one of `words`."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        page = person.get(f"/admin/joblogs/details/{run_id}").text
        if any(word in page for word in words):
            return page
        time.sleep(0.1)
    raise AssertionError(f"run {run_id} says none of {words}:\n{page}")


def test_run_now_shows_result_and_log(person: Person) -> None:
    create(person, "echo", "EchoJob", public_cfg=json.dumps({"greeting": "你好"}))
    page = wait_for(person, run_now(person, "echo"), "Success")
    assert "你好" in page and "some.library" in page


def test_retry_runs_what_ran_then_although_the_job_was_changed(person: Person) -> None:
    create(person, "changed", "EchoJob", public_cfg=json.dumps({"mark": "as it was"}))
    first = run_now(person, "changed")
    wait_for(person, first, "Success")
    saved = person.fill("/admin/jobs/edit/changed", {"public_cfg": json.dumps({"mark": "as it is now"})})
    assert saved.status_code in (302, 303), saved.text
    again = person.post(f"/admin/joblogs/{first}/retry")
    assert again.status_code == 303, again.text
    page = wait_for(person, int(again.headers["location"].rsplit("/", 1)[1]), "Success")
    ran_with, differs = page.split('id="differences"')
    assert "as it was" in ran_with and "as it is now" not in ran_with
    assert "as it is now" in differs, "beside what it ran with stands what the Job is today"


def test_retry_is_refused_while_running_and_cancel_ends_it(person: Person) -> None:
    create(person, "holds", "HoldJob")
    run_id = run_now(person, "holds")
    wait_for(person, run_id, "Running")
    refused = person.post(f"/admin/joblogs/{run_id}/retry")
    assert refused.status_code == 409 and "still running" in refused.text
    chinese = person.post(f"/admin/joblogs/{run_id}/retry", headers={"Accept-Language": "zh-CN"})
    assert "正在运行中，请结束后再重试" in chinese.text
    assert person.post(f"/admin/joblogs/{run_id}/cancel").status_code == 303
    wait_for(person, run_id, "Cancelled")


def test_timeout_and_attempts(person: Person) -> None:
    create(person, "slow", "WaitJob", timeout_s="1")
    wait_for(person, run_now(person, "slow"), "Timeout")
    create(person, "fails", "FailJob", max_attempts="2", retry_delays="0", public_cfg='{"until": 2}')
    first = run_now(person, "fails")
    wait_for(person, first, "Failed")
    wait_for(person, first + 1, "made it")


def test_a_job_that_is_running_cannot_be_deleted(person: Person) -> None:
    create(person, "kept", "HoldJob")
    run_id = run_now(person, "kept")
    wait_for(person, run_id, "Running")
    refused = person.post("/admin/jobs/delete/kept")
    assert refused.status_code == 409 and "still queued or running" in refused.text
    assert person.get("/admin/jobs/details/kept").status_code == 200
    person.post(f"/admin/joblogs/{run_id}/cancel")
    wait_for(person, run_id, "Cancelled")
    assert person.post("/admin/jobs/delete/kept", data={"typed": "kept"}).status_code == 303
    assert person.get("/admin/jobs/details/kept").status_code == 404


def test_what_was_missed_while_the_hub_was_down_is_told(tmp_path: Path) -> None:
    with Program(tmp_path, ENVIRON) as program:
        person = Person(program.url)
        person.sign_in("a password")
        create(person, "every-minute", "EchoJob", cron_expr="* * * * *")
        assert program.stop() == 0
    program.fetch(
        "UPDATE jobs SET next_run_at = date_trunc('minute', clock_timestamp()) - interval '10 min'"
        " WHERE id = 'every-minute'"
    )
    assert "paused" in program.command("pause")
    with Program(tmp_path, ENVIRON) as program:
        assert not program.fetch("SELECT FROM job_logs")
        assert "resumed" in program.command("resume")
        assert program.stop() == 0
    with Program(tmp_path, ENVIRON) as program:
        person = Person(program.url)
        person.sign_in("a password")
        end = time.monotonic() + 30
        while "Missed" not in (page := person.get("/admin/joblogs/list?search=every-minute").text):
            assert time.monotonic() < end, page
            time.sleep(0.1)
        assert "Skipped" in page
        assert program.stop() == 0
    missed, made_up = program.fetch("SELECT * FROM job_logs ORDER BY scheduled_for LIMIT 2")
    assert (missed["status"], missed["reason"]) == ("SKIPPED", "missed")
    assert json.loads(missed["meta"])["missed"]["count"] >= 10
    assert made_up["status"] in ("SUCCESS", "QUEUED") and made_up["scheduled_for"] > missed["scheduled_for"]


def test_runs_succeed_again_after_the_embedded_database_has_ended(tmp_path: Path) -> None:
    """No command meanwhile: each would start the server, too."""
    with Program(tmp_path, ENVIRON) as program:
        person = Person(program.url)
        person.sign_in("a password")
        create(person, "echo", "EchoJob")
        before = PidFile.read(program.data / "postgres" / "postmaster.pid")
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        end = time.monotonic() + 40
        while (
            PidFile.read(program.data / "postgres" / "postmaster.pid") in (None, before)
            or person.get("/health/ready").status_code != 200
        ):
            assert time.monotonic() < end, "".join(program.lines)
            time.sleep(0.1)
        wait_for(person, run_now(person, "echo"), "Success")
        said = [line for line in program.lines if "embedded PostgreSQL" in line]
        assert len(said) == 2 and "has ended, and is started again" in said[0], said
        assert program.stop() == 0
    left = PidFile.read(program.data / "postgres" / "postmaster.pid")
    assert left is None or not left.is_live(program.data / "postgres")
