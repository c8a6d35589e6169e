"""The admin as the tests of it see it: the app on a real database, and a client that talks HTTP to it.

A pytest plugin: test modules name it in `pytest_plugins` to get the fixtures `stranger` and `hub`. They
import from it as well, before pytest could rewrite its asserts: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.fernet import Fernet
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from connecthub.config import Settings, load_settings
from connecthub.security.passwords import hash_password
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.storage.users import ensure_admin
from connecthub.web.app import create_app

PASSWORD = "correct-horse"
CANARY = "canary-9f3b71c2"
OWN = {"Origin": "http://testserver", "Accept-Language": "en"}
HANDLERS = '''
from pydantic import BaseModel

from connecthub.plugins import BaseJob


class PlainJob(BaseJob):
    """Does nothing."""

    def run(self, params, secrets):
        return {}


class TypedJob(PlainJob):
    class Params(BaseModel):
        base_url: str
        hours: int = 24

    class Secrets(BaseModel):
        token: str
'''
GOOD = {
    "id": "sync-1", "name": "Sync", "tags": "oa, travel", "enabled": "on", "cron_expr": "*/5 * * * *",
    "timezone": "Asia/Shanghai", "handler_path": "webjobs.jobs:PlainJob", "public_cfg": '{"base_url": "http://oa"}',
    "secret_cfg": json.dumps({"token": CANARY}),
}  # fmt: skip


class Hub:
    """A client of the app, and a look into its database."""

    def __init__(self, client: TestClient, dsn: str, vault: Vault) -> None:
        self.client, self.dsn, self.vault = client, dsn, vault
        self.problems: dict[str, str | None] = {"database": None}

    def sql(self, query: str, *values: Any) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = run(fetch(self.dsn, query, *values))
        return rows

    @property
    def routes(self) -> list[BaseRoute]:
        app: Any = self.client.app
        return list(app.routes)

    def browser(self, base_url: str = "http://testserver", address: str = "testclient") -> TestClient:
        """Another browser at the same hub."""
        other = TestClient(self.client.app, base_url, follow_redirects=False, client=(address, 1))
        other.portal = self.client.portal  # the loop on which the hub's database is open
        other.headers["Accept-Language"] = "en"
        return other

    def answer_faults(self) -> None:
        """From now on a fault of the app is answered as by a server, and not raised in the test."""
        self.client._transport.raise_server_exceptions = False  # type: ignore[attr-defined]

    def log_in(self, username: str = "admin") -> None:
        answer = self.post("/admin/login", username=username, password=PASSWORD)
        assert answer.status_code == 303 and answer.headers["location"] == "/admin/"

    def post(self, path: str, headers: Any = None, **fields: str) -> Any:
        return self.client.post(path, data=fields, headers=OWN if headers is None else headers)

    def page(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
        return unescape(answer.text)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def fetch(dsn: str, query: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


@contextmanager
def serving(dsn: str, settings: Settings) -> Iterator[Hub]:
    vault = Vault([Fernet(Fernet.generate_key())])
    hub: Hub

    async def readiness() -> dict[str, str | None]:
        return hub.problems

    async def metrics() -> bytes:
        return b"connecthub_places 4\n"

    # The database opens on the loop that serves the requests.
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        database = await Database.open(dsn, size=3)
        await ensure_admin(database, PASSWORD, settings.data_dir)
        app.mount("/", create_app(settings, database, vault, readiness, metrics))
        yield
        await database.close()

    with TestClient(Starlette(lifespan=lifespan), follow_redirects=False) as client:
        client.headers["Accept-Language"] = "en"
        hub = Hub(client, dsn, vault)
        yield hub


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    package = tmp_path / "webjobs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text(HANDLERS)
    return load_settings(
        None,
        {
            "CONNECTHUB_DATA__DIR": str(tmp_path / "data"),
            "CONNECTHUB_PLUGINS__PACKAGES": '["webjobs"]',
            "CONNECTHUB_PLUGINS__PATH": str(tmp_path),
        },
    )


@pytest.fixture
def stranger(dsn: str, settings: Settings) -> Iterator[Hub]:
    """A hub in which nobody has logged in."""
    with serving(dsn, settings) as hub:
        yield hub


@pytest.fixture
def hub(stranger: Hub) -> Hub:
    stranger.log_in()
    return stranger


def add_user(hub: Hub, username: str, role: str) -> None:
    """An account with the password PASSWORD."""
    hashed = hash_password(PASSWORD)
    hub.sql("INSERT INTO users (username, password_hash, role) VALUES ($1, $2, $3)", username, hashed, role)


def insert_job(hub: Hub, job_id: str = "sync-1") -> None:
    hub.sql(
        "INSERT INTO jobs (id, cron_expr, handler_path, secret_cfg)"
        " VALUES ($1, '0 * * * *', 'webjobs.jobs:PlainJob', $2)",
        job_id,
        hub.vault.encrypt({"token": CANARY}),
    )


def insert_run(hub: Hub, status: str = "SUCCESS", job_id: str = "sync-1") -> int:
    ended = status not in ("QUEUED", "RUNNING")
    rows = hub.sql(
        "INSERT INTO job_logs (job_id, revision_id, trigger, status, idempotency_key, finished_at, message,"
        " run_log, traceback, result, params)"
        " SELECT id, revision_id, 'manual', $2, 'key-1', CASE WHEN $3 THEN now() END,"
        " 'all well', '<b>line 1</b>', 'Traceback: deep', '{\"total\": 7}', '{\"only\": \"once\"}'"
        " FROM jobs WHERE id = $1 RETURNING id",
        job_id,
        status,
        ended,
    )
    return int(rows[0]["id"])


def errors_of(page: str) -> dict[str, str]:
    """The texts that stand beside the fields, by field."""
    return {name: unescape(text) for name, text in re.findall(r'id="([\w.]+)-error">([^<]*)<', page)}
