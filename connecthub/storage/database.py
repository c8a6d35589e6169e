"""Connections to the one PostgreSQL, and its migrations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from connecthub.errors import DatabaseError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    # What asyncpg hands out: a connection, or a pool's wrapper of one.
    Connected = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

log = logging.getLogger(__name__)

CHANNEL = "connecthub"
_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 0x636F6E6E656374  # any fixed number, the same for all hubs
CONNECT_TIMEOUT_S = 10.0
_SESSION = {
    "application_name": "connecthub",
    # A stopped hub must not hold locks for longer than this.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
# What asyncpg raises where the server is away, starting, full, or cut in the middle.
UNAVAILABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
)


class Database:
    """A pool of asyncpg connections, and an SQLAlchemy engine for the admin's lists and forms.

    `jsonb` values arrive as text. The engine of runs and the admin each open a Database of their own, so that
    slow pages never take a connection away from a run.
    """

    def __init__(self, dsn: str, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.dsn = dsn
        self.pool = pool
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda: asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, server_settings=_SESSION),
            pool_size=5,
            pool_pre_ping=True,
            hide_parameters=True,
        )

    @classmethod
    async def open(cls, dsn: str, *, size: int = 5, settings: dict[str, str] | None = None) -> Database:
        """Connect to `dsn` with at most `size` connections; `settings` are added to each of their sessions.

        Raises DatabaseError, one line without the password, where that is not possible.
        """
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=size,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=60,
                server_settings=_SESSION | (settings or {}),
            )
        except (*UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
            raise _unreachable(error) from None
        return cls(dsn, pool)

    async def close(self) -> None:
        """Return after all connections have ended."""
        await self.engine.dispose()
        await self.pool.close()

    @asynccontextmanager
    async def transaction(self, user: str = "") -> AsyncIterator[Connected]:
        """A transaction in which `user` is the author of the revisions it writes."""
        async with self.pool.acquire() as connection, connection.transaction():
            if user:
                await connection.execute("SELECT set_config('connecthub.user', $1, true)", user)
            yield connection

    async def listen(self, heard: Callable[[str], None]) -> Callable[[], Awaitable[None]]:
        """Call `heard` with each payload notified on CHANNEL, over a connection of its own.

        `heard("")` is called when that connection has ended. The result closes it.
        """
        connection = await asyncpg.connect(self.dsn, timeout=CONNECT_TIMEOUT_S, server_settings=_SESSION)

        def on_notice(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
            heard(str(payload))

        connection.add_termination_listener(lambda _connection: heard(""))
        await connection.add_listener(CHANNEL, on_notice)
        return connection.close


async def migrate(dsn: str) -> None:
    """Bring the schema up to date; hubs that start at once wait for each other.

    Raises DatabaseError where the database cannot be reached or its schema is newer than this version.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            await connection.run_sync(_upgrade)
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        raise _unreachable(error) from None
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _unreachable(error: BaseException) -> DatabaseError:
    words = " ".join(str(error).split()) or type(error).__name__
    return DatabaseError(
        f"database cannot be used: {words}; check [database] url (CONNECTHUB_DATABASE__URL) and that the "
        "server runs, or leave it empty for the embedded PostgreSQL"
    )
