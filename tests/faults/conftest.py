"""One stage per case; see stage.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A PostgreSQL of the case's own, and no hub yet."""
    with Stage(tmp_path) as stage:
        yield stage


def needs(what: str, there: bool) -> None:
    """Skip the case by name where the system lacks something; in CI that is a failure."""
    if not there:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is not here; .ci/run installs it")
        pytest.skip(f"needs {what}")
