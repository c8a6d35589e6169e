"""Which code a run was of, and how a hub tells that files have changed since it loaded them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tests.engine.conftest import Rig

SOURCE = """
from connecthub.plugins import BaseJob
from plugged import helper

class AnyJob(BaseJob):
    {isolation}
    def run(self, params, secrets):
        return {{"says": helper.WORD}}
"""
COMMIT = "89abcdef" * 5


@pytest.fixture
def plugged(rig: Rig) -> Path:
    """A package with the modules `job` and `helper`, in a git checkout."""
    folder = rig.settings.plugin_path / "plugged"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "job.py").write_text(SOURCE.format(isolation=""))
    (folder / "helper.py").write_text("WORD = 'old'\n")
    git = rig.settings.plugin_path / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{COMMIT} refs/heads/main\n")
    return folder


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def code_of(rig: Rig, run_id: int) -> Any:
    return json.loads(rig.wait(run_id, "SUCCESS")["meta"])["code"]


@pytest.mark.parametrize("isolation", ["", 'isolation = "process"'])
def test_a_run_says_which_code_it_was(rig: Rig, plugged: Path, isolation: str) -> None:
    (plugged / "job.py").write_text(SOURCE.format(isolation=isolation))
    rig.start_hub()
    rig.job("a", "plugged.job:AnyJob")
    told = {"module": "plugged.job", "sha256": digest(plugged / "job.py"), "commit": COMMIT[:12]}
    assert code_of(rig, rig.run("a")) == told

    (plugged / "job.py").write_text(SOURCE.format(isolation=isolation) + "# changed\n")
    (rig.settings.plugin_path / ".git" / "HEAD").write_text("1" * 40 + "\n")
    if isolation:  # loaded anew for each run
        told = {"module": "plugged.job", "sha256": digest(plugged / "job.py"), "commit": "1" * 12}
    assert code_of(rig, rig.run("a")) == told


def test_a_running_run_says_it_already(rig: Rig, plugged: Path) -> None:
    (plugged / "job.py").write_text(
        "from tests.engine import sample_jobs\nclass AnyJob(sample_jobs.HoldJob): pass\n"
    )
    rig.start_hub()
    rig.job("a", "plugged.job:AnyJob")
    run_id = rig.run("a")
    meta = rig.until(lambda: json.loads(rig.row(run_id)["meta"]))
    assert rig.row(run_id)["status"] == "RUNNING" and meta["code"]["sha256"] == digest(plugged / "job.py")


def test_a_hub_says_which_files_have_changed_since_it_loaded_them(rig: Rig, plugged: Path) -> None:
    rig.start_hub()
    rig.job("a", "plugged.job:AnyJob")
    rig.wait(rig.run("a"), "SUCCESS")

    def changed() -> list[str]:
        return [
            name
            for row in rig.sql("SELECT changed_modules FROM hubs")
            for name in row["changed_modules"]
            if name.startswith("plugged")
        ]

    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise SystemExit

    sys.modules["plugged.hostile"] = cast(Any, Hostile())
    (plugged / "job.py").touch()  # says the same as before
    (plugged / "helper.py").write_text("WORD = 'new'\n")
    assert rig.until(changed) == ["plugged.helper"]
    (plugged / "job.py").unlink()
    rig.until(lambda: changed() == ["plugged.helper", "plugged.job"])
    assert json.loads(rig.wait(rig.run("a"))["result"]) == {"says": "old"}


def test_what_fails_inside_the_hub_is_logged_with_its_place(
    hub: Rig, plugged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a class does not even say how it wants to be run; its words stay out of the hub's log."""
    (plugged / "job.py").write_text(
        "from connecthub.plugins import BaseJob\n"
        "class Kind(type(BaseJob)):\n"
        "    @property\n"
        "    def isolation(cls): raise RuntimeError('canary-1b7')\n"
        "class AnyJob(BaseJob, metaclass=Kind):\n"
        "    def run(self, params, secrets): pass\n"
    )
    hub.job("a", "plugged.job:AnyJob")
    row = hub.wait(hub.run("a"))
    assert (row["status"], row["reason"]) == ("FAILURE", "exception") and "canary-1b7" in row["message"]
    assert f"failed inside the hub: RuntimeError at {plugged / 'job.py'}:4 in isolation" in caplog.text
    assert "canary-1b7" not in caplog.text
