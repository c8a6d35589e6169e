"""What the cases share: the built image, and a word about what a machine lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.faults.conftest import needs
from tests.ops.podman import build_image, podman


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built from a clean state."""
    needs("root, to make the base image", os.geteuid() == 0)
    for program in ("podman", "runc", "debootstrap"):
        needs(program, shutil.which(program) is not None)
    name = build_image(tmp_path_factory.mktemp("build"))
    yield name
    podman("rmi", "-f", name)
