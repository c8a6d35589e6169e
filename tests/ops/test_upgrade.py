"""A newer version comes, migrates under a hub that runs, and goes again.

The newer version is this one with one more migration; the older one is this one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from connecthub.storage.schema import schema_head
from tests.installation import Site
from tests.program import ROOT, Program

pytest_plugins = ["tests.installation"]

PLUGIN = """
class SecretJob(BaseJob):
    def run(self, params, secrets):
        return {"length": len(secrets["token"])}
"""
NEXT = '''"""What comes after."""

from connecthub.storage.migrations.script import run_script_of

revision = "9000"
down_revision = "{head}"


def upgrade() -> None:
    run_script_of(__file__)
'''
NEXT_SQL = """
CREATE TABLE colours (name text PRIMARY KEY);
ALTER TABLE jobs ADD COLUMN colour text REFERENCES colours (name);
ALTER TABLE job_logs DROP COLUMN progress CASCADE;
"""


class Newer:
    """The newer version, as a copy that is installed in `folder`."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._site, self._folder = site, folder
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "connecthub", folder / "connecthub", ignore=without)
        versions = folder / "connecthub" / "storage" / "migrations" / "versions"
        (versions / "9000_next.py").write_text(NEXT.format(head=schema_head()))
        (versions / "9000_next.sql").write_text(NEXT_SQL)

    def command(self, *words: str) -> str:
        """What a command of it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "connecthub", *words],
            cwd=self._site.folder,
            env=self._site.environ | {"PYTHONPATH": str(self._folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.ci
def test_a_newer_version_is_rolled_back_with_the_backup_made_before(site: Site, tmp_path: Path) -> None:
    newer = Newer(site, tmp_path / "newer")
    with (site.folder / "checkjobs" / "job.py").open("a") as file:
        file.write(PLUGIN)
    token = site.vault.encrypt({"token": "canary-77aa"})
    site.job("secret", cron="0 0 29 2 *", handler="checkjobs.job:SecretJob", secret_cfg=token)
    settings = {name: value for name, value in site.environ.items() if name.startswith("CONNECTHUB_")}
    archive = str(tmp_path / "before.zip")
    with Program(site.folder, settings) as hub:
        assert site.command("job", "run", "secret", "--wait").returncode == 0
        assert site.command("backup", archive).returncode == 0
        pending = newer.command("migrate", "--sql")
        assert "CREATE TABLE colours" in pending and "0001" not in pending
        newer.command("migrate")
        assert newer.command("job", "run", "secret") == "run 2 is queued\n"
        ready = httpx.get(f"{hub.url}/health/ready", timeout=30)
        while ready.json()["checks"]["schema"] == "ok":
            ready = httpx.get(f"{hub.url}/health/ready", timeout=30)
        assert ready.status_code == 503 and "schema 9000" in ready.json()["checks"]["schema"]
    assert any("fires and starts nothing any more" in line for line in hub.lines)
    assert "QUEUED" in newer.command("run", "list")
    refused = site.command("serve")
    assert refused.returncode == 2 and "restore a backup made by this one" in refused.stderr
    restored = site.command("restore", archive, "--replace", "--yes")
    assert restored.returncode == 0, restored.stderr
    assert f"ok: {schema_head()}" in site.check(status=0)["schema"][0]
    with Program(site.folder, settings):
        assert site.command("resume").returncode == 0
        assert site.command("job", "run", "secret", "--wait").returncode == 0
