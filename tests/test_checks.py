"""Format, lint, types and layers are part of the tests: one command says whether all is well."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        [BIN / "ruff", "format", "--check", "."],
        [BIN / "ruff", "check", "."],
        [sys.executable, "-m", "mypy"],
        [BIN / "lint-imports"],
    ],
    ids=["format", "lint", "types", "layers"],
)
def test_the_code_passes(command: list[str | Path]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_that_belongs_to_one_machine_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert "README.md" in names, "this test needs a git checkout"
    assert not [name for name in names if Path(name).name in ("uv.lock", "package-lock.json", "config.toml")]
    pins = (ROOT / "constraints.txt").read_text()
    assert "://" not in pins and all("==" in line for line in pins.splitlines())


def test_the_readme_starts_with_the_two_commands_and_ci_runs_the_second() -> None:
    start, test = re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(), re.S)[:2]
    assert start.endswith("python -m connecthub") and "pytest" in test
    assert test in (ROOT / ".ci" / "run").read_text().splitlines()
    assert f"```sh\n{start}\n```" in (ROOT / "README.zh-CN.md").read_text()


def test_direct_dependencies_have_both_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    assert not [one for one in named if not re.search(r"==|>=.*,<", one)]
