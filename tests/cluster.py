"""The tests' own throw-away PostgreSQL: one server for a whole test session, shared by all xdist workers.

Whoever comes first starts it, and the last to leave stops it: `EmbeddedPostgres` itself sees to that. Each
test takes a database of its own, made from a template. In conftest.py:

    from tests import cluster

    @pytest.fixture(scope="session")
    def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        root = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            root = root.parent                      # the same folder for all workers
        yield cluster.start_shared(root)
        cluster.stop_shared(root)

    @pytest.fixture(scope="session")
    def template(server: str) -> str:
        def fill(dsn: str) -> None:                 # called in one worker only; all others wait for it
            asyncio.run(migrate(dsn))
        return cluster.make_template(server, "migrated", fill)

    @pytest.fixture
    def dsn(server: str, template: str) -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        yield cluster.create_database(server, name, template)
        cluster.drop_database(server, name)

All functions are synchronous and may also be called where an event loop is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from connecthub.storage.embedded import EmbeddedPostgres
from connecthub.storage.embedded_folder import ROLE

# Nothing in here has to survive a power cut, and autovacuum would only disturb what the tests measure.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}
_running: dict[Path, EmbeddedPostgres] = {}
T = TypeVar("T")


def start_shared(root_tmp: Path) -> str:
    """Start or join the session's server in `root_tmp`; the superuser's URL of its maintenance database."""
    if root_tmp not in _running:
        _running[root_tmp] = _run(EmbeddedPostgres.start(root_tmp / "cluster", settings=SETTINGS))
    return _running[root_tmp].admin_dsn


def stop_shared(root_tmp: Path) -> None:
    """Leave the server; it stops with its last user, and its databases stay for a worker that comes later."""
    server = _running.pop(root_tmp, None)
    if server is not None:
        _run(server.stop())


def make_template(dsn: str, name: str, fill: Callable[[str], None]) -> str:
    """Make the database `name` and let `fill(its dsn)` fill it, once per server; returns the name.

    The other workers wait until it is filled. A `fill` that raises leaves no template behind.
    """

    async def make() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute("SELECT pg_advisory_lock(hashtext($1))", name)
            if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                return
            unfinished = f"{name}_unfinished"
            await _drop(connection, unfinished)
            await _create(connection, unfinished, None)
            await asyncio.to_thread(fill, _database_url(dsn, unfinished))
            await connection.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{name}"')
        finally:
            await connection.close()

    _run(make())
    return name


def create_database(dsn: str, name: str, template: str | None = None) -> str:
    """Create a database of the hub's role, as a copy of `template` where one is named; the role's URL of it.

    Nobody may be connected to the template meanwhile.
    """
    _execute(dsn, lambda connection: _create(connection, name, template))
    return _database_url(dsn, name)


def drop_database(dsn: str, name: str) -> None:
    """Drop a database and cut off whoever is still connected to it; it need not exist."""
    _execute(dsn, lambda connection: _drop(connection, name))


async def _create(connection: asyncpg.Connection, name: str, template: str | None) -> None:
    origin = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""  # half as long as by WAL
    await connection.execute(f'CREATE DATABASE "{name}" OWNER {ROLE}{origin}')


async def _drop(connection: asyncpg.Connection, name: str) -> None:
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _database_url(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(netloc=f"{ROLE}@", path=f"/{name}"))


def _execute(dsn: str, action: Callable[[asyncpg.Connection], Coroutine[Any, Any, None]]) -> None:
    async def act() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await action(connection)
        finally:
            await connection.close()

    _run(act())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a loop and in a thread of its own: the caller's thread may have a loop running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
