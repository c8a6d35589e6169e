"""The image as people run it: closed, and with the main job. One container is a whole installation."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.faults.stage import Stage
from tests.ops.podman import Container, podman
from tests.program import ROOT, Person
from tests.standins.__main__ import job_settings
from tests.standins.dataset import Dataset, make_dataset
from tests.standins.didi import DidiStandin
from tests.standins.oa import OaStandin
from tests.test_run_life import run_now, wait_for

CLASS = "SyncOAToDidiLegalEntitySyncJob"
SECRET = ("rest_password", "client_secret", "sign_key")


@pytest.fixture
def data() -> Dataset:
    return make_dataset(200)


def create_main_job(person: Person, standins: tuple[OaStandin, DidiStandin], cron: str) -> dict[str, str]:
    """The main job, by the form; its secrets."""
    public, secret = job_settings(standins[0].url, standins[1].url)[CLASS]
    form = {
        "id": "oa-to-didi",
        "cron_expr": cron,
        "handler_path": f"extensions.sync_oa_to_didi.job:{CLASS}",
        "public_cfg": json.dumps(public),
        "secret_cfg": json.dumps(secret),
    }
    created = person.fill("/admin/jobs/create", form)
    assert created.status_code == 303, created.text
    return secret


def first_run(person: Person) -> int:
    """The run that the tick makes within the next minute."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        found = re.search(r"/admin/joblogs/details/(\d+)", person.get("/admin/joblogs/list").text)
        if found:
            return int(found[1])
        time.sleep(0.2)
    raise AssertionError("no run within 90 s")


@pytest.mark.ci
def test_a_single_container_runs_the_main_job_and_drains_it_when_stopped(
    image: str, tmp_path: Path, standins: tuple[OaStandin, DidiStandin], data: Dataset
) -> None:
    manual = (ROOT / "docs" / "back-up-and-restore.md").read_text("utf-8")
    back_up, restore = re.findall(r"```sh\n(podman .*?)```", manual, re.S)
    with Container(image) as container:
        assert container.execute("id", "-u") == "10001"
        with pytest.raises(AssertionError, match="Read-only file system"):
            container.execute("touch", "/app/x")
        podman("healthcheck", "run", container.name)
        container.execute("connecthub", "check")
        person = Person(container.url)
        person.sign_in(container.execute("cat", "/data/admin-password"))
        secrets = create_main_job(person, standins, "* * * * *")
        run_id = first_run(person)
        while not standins[1].edits:
            wait_for(person, run_id, "Running")
        assert container.stop() == 0
        assert standins[1].edited() == data.expected.edits, "the run that was going came to its end"
        container.start()
        page = wait_for(person, run_id, "Success")
        assert str(data.expected.success) in page and "Signed in" not in page
        printed = container.log()
        assert not [name for name in SECRET if secrets[name] in printed + page]
        for _night in range(2):
            container.follow(back_up, tmp_path)
        (made,) = tmp_path.glob("connecthub-*.zip")
        assert made.stat().st_mode & 0o777 == 0o600
        said = container.follow(restore.replace("connecthub-2026-11-24.zip", made.name), tmp_path, "y\n")
        assert "restored from /data/b.zip" in said  # without any folder for temporary files
        container.start()
        assert "b.zip" not in container.execute("ls", "/data")
        assert container.execute("connecthub", "resume") == "resumed"
        assert container.stop() == 0


@pytest.mark.ci
def test_with_a_database_of_ones_own_nothing_but_keys_is_in_the_volume(
    image: str, tmp_path: Path, standins: tuple[OaStandin, DidiStandin], data: Dataset
) -> None:
    with Stage(tmp_path) as stage:
        port = stage.proxy().port
        url = f"postgresql://connecthub@127.0.0.1:{port}/connecthub?sslmode=disable"
        environ = {"CONNECTHUB_DATABASE__URL": url, "CONNECTHUB_SECURITY__ADMIN_PASSWORD": "a password"}
        with Container(image, **environ) as container:
            person = Person(container.url)
            person.sign_in("a password")
            create_main_job(person, standins, "0 0 29 2 *")
            run_id = run_now(person, "oa-to-didi")
            wait_for(person, run_id, "Success")
            row = stage.db.fetchrow("SELECT status, result FROM job_logs WHERE id = $1", run_id)
            assert json.loads(stage.do(row)["result"])["success"] == data.expected.success
            assert standins[1].edited() == data.expected.edits
            assert "postgres" not in container.execute("ls", "/data")
            assert container.stop() == 0


def test_nothing_of_this_machine_is_in_the_image(image: str) -> None:
    """What pip needed to reach its packages came by mounts, and left with the build."""
    look = "ls -A /app; find /src /etc/pip.conf /root/.config /root/.cache -type f -size +0 2>/dev/null; true"
    found = podman("run", "--rm", "--pull=never", "--network", "none", "-u", "0", image, "sh", "-c", look)
    assert found == "extensions"


@pytest.mark.ci
@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_starts_it_as_closed_as_it_was_tried_and_opens_one_port(readme: str) -> None:
    text = (ROOT / readme).read_text("utf-8")
    started = re.search(r"^podman run .*$", text, re.M)
    compose = re.search(r"```yaml\n(services:.*?)```", text, re.S)
    assert started and compose
    assert "--read-only --cap-drop all" in started[0] and "-p 8000:8000" in started[0]
    assert re.findall(r"ports: (.*)", compose[1]) == ['["8000:8000"]']
    assert "read_only: true" in compose[1] and "cap_drop: [all]" in compose[1]
