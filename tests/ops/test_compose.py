"""README's compose example, word for word but for the port, run by podman-compose."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import needs
from tests.ops.podman import CACHE, debian, log, podman
from tests.program import ROOT, Person
from tests.standins.__main__ import job_settings
from tests.test_run_life import create, run_now, wait_for

# Does what the official image does with these variables, at its first start and later.
_POSTGRES = r"""
data=/var/lib/postgresql/data; bin=$(echo /usr/lib/postgresql/*/bin); as="runuser -u postgres --"
install -d -o postgres -m 0700 $data; install -d -o postgres /var/run/postgresql
if [ ! -s $data/PG_VERSION ]; then
  printf %s "$POSTGRES_PASSWORD" > /tmp/password; chmod 644 /tmp/password
  $as $bin/initdb -D $data -U $POSTGRES_USER -E UTF8 -A scram-sha-256 --pwfile=/tmp/password; rm /tmp/password
  echo "host all all all scram-sha-256" >> $data/pg_hba.conf
  echo "CREATE DATABASE $POSTGRES_USER" | $as $bin/postgres --single -D $data postgres
fi
exec $as $bin/postgres -D $data -c listen_addresses="*"
"""
CLASS = "SyncOAToDidiTokenJob"
NAME = "docker.io/library/postgres:17"


@pytest.fixture
def postgres() -> Iterator[str]:
    """An image that stands for NAME; taken away again, so that nobody takes it for the real one."""
    if podman("images", "-q", NAME):
        yield NAME
        return
    made = ("--change", "ENTRYPOINT " + json.dumps(["sh", "-ec", _POSTGRES]))
    podman("import", *made, str(debian("postgres", "postgresql")), NAME, timeout_s=300)
    yield NAME
    podman("rmi", NAME)


def compose(folder: Path, *words: str) -> str:
    """What `podman-compose WORDS` prints, for the compose.yaml in `folder`."""
    environ = {**os.environ, "CONTAINERS_CONF": str(CACHE / "containers.conf"), "DB_PASSWORD": "p-7f3a"}
    done = subprocess.run(
        ["podman-compose", *words], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_compose_example_runs_a_job_and_opens_one_port(image: str, postgres: str, tmp_path: Path) -> None:
    needs("podman-compose", shutil.which("podman-compose") is not None)
    example = re.search(r"```yaml\n(services:.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert example and '"8000:8000"' in example[1]
    project = f"compose{uuid.uuid4().hex[:8]}"
    folder = tmp_path / project
    folder.mkdir()
    (folder / "compose.yaml").write_text(example[1].replace('"8000:8000"', f'"127.0.0.1:{port}:8000"'))
    podman("tag", image, f"localhost/{project}_hub")  # the name that `build:` gives it
    try:
        compose(folder, "up", "-d", "--no-build")
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 120  # it is started again until the database is there
        while not answers(url):
            assert time.monotonic() < end, log(f"{project}_hub_1")
            time.sleep(0.2)
        hub = f"{project}_hub_1"
        person = Person(url)
        person.sign_in(podman("exec", hub, "cat", "/data/admin-password"))
        nowhere = "http://127.0.0.1:9"
        public, secret = map(json.dumps, job_settings(nowhere, nowhere)[CLASS])
        handler = f"extensions.sync_oa_to_didi.job:{CLASS}"
        create(person, "sync", "", handler_path=handler, public_cfg=public, secret_cfg=secret)
        wait_for(person, run_now(person, "sync"), "no connection")
        assert "PostgreSQL" in podman("exec", hub, "connecthub", "check")
        published = [podman("port", one) for one in podman("ps", "-q", "--filter", f"name={project}").split()]
        assert "".join(published) == f"8000/tcp -> 127.0.0.1:{port}"
    finally:
        compose(folder, "down", "-v")
        # This version of podman-compose leaves the network, and what would start again.
        podman("rm", "-f", "-i", f"{project}_hub_1", f"{project}_db_1")
        podman("network", "rm", "-f", f"{project}_default")
        podman("rmi", f"localhost/{project}_hub")
