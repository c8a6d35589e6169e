"""Each test has a database of its own on the session's real PostgreSQL, made from a migrated template."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from connecthub.storage.pending import migrate
from tests import cluster
from tests.standins.dataset import Dataset
from tests.standins.didi import DidiStandin
from tests.standins.oa import OaStandin

# How long an example takes says something of the machine, and nothing of what is tested.
hypothesis_settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("tests")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The superuser's URL of the session's PostgreSQL, one for all xdist workers."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    yield cluster.start_shared(root)
    cluster.stop_shared(root)


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """The name of a migrated database."""
    return cluster.make_template(server, "migrated", lambda dsn: asyncio.run(migrate(dsn)))


@pytest.fixture
def dsn(server: str, template: str) -> Iterator[str]:
    """The URL of a fresh migrated database."""
    name = f"test_{uuid.uuid4().hex}"
    yield cluster.create_database(server, name, template)
    cluster.drop_database(server, name)


@pytest.fixture
def bare(server: str) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"bare_{uuid.uuid4().hex}"
    yield cluster.create_database(server, name)
    cluster.drop_database(server, name)


@pytest.fixture
def standins(data: Dataset) -> Iterator[tuple[OaStandin, DidiStandin]]:
    """The outside systems, with the `data` that the test's own fixture makes."""
    with OaStandin(data) as oa, DidiStandin(data) as didi:
        yield oa, didi
