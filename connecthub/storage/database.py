"""Connections to the one PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from connecthub.storage.failures import unreachable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    # What asyncpg hands out: a connection, or a pool's wrapper of one.
    Connected = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

log = logging.getLogger(__name__)

CHANNEL = "connecthub"
CONNECT_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0
_SESSION = {
    "application_name": "connecthub",
    # A stopped hub must not hold locks for longer than this.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
# Sessions of the engine: the queue is empty when its plans are made and full when they are used, so that a
# plan that reads all of it, for each run or to sort it, must never look cheap. And a claim was planned anew each
# time, which took as long as what it does: what it is given never makes another plan better.
ENGINE_SETTINGS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",  # before PostgreSQL 18 what is switched off above looks dear enough to be compiled, each time
}
# Sessions of pages: what a page shows of a large table is found by an index. Where runs come faster than statistics,
# reading all of the table looks cheaper, and a bitmap reads again what has left the index, which an index scan marks.
PAGE_SETTINGS = {"enable_seqscan": "off", "enable_bitmapscan": "off"}
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
    slow pages never take a connection away from a run. `is_pooled`: a connection pooler such as PgBouncer
    stands between, which may give each transaction another session: settings for each transaction, no
    prepared statements, no LISTEN.
    """

    def __init__(
        self, dsn: str, pool: asyncpg.Pool[asyncpg.Record], options: dict[str, Any], local: str = ""
    ) -> None:
        self.pool = pool
        self.is_pooled = bool(local)
        self._local = local
        self._connect = partial(asyncpg.connect, dsn, **options)
        self.engine: AsyncEngine = alchemy_engine(self._connect)

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        size: int = 5,
        settings: dict[str, str] | None = None,
        command_timeout_s: float = 60,
    ) -> Database:
        """Connect to `dsn` with at most `size` connections; `settings` are added to each of their sessions.

        A statement that has not answered after `command_timeout_s` counts as UNAVAILABLE. Raises
        DatabaseError, one line without the password, where connecting is not possible.
        """
        try:
            options: dict[str, Any] = {
                "timeout": min(CONNECT_TIMEOUT_S, command_timeout_s),
                "max_cached_statement_lifetime": 0,  # or each is prepared anew every five minutes, at a minute mark
            }
            session, local = _SESSION | (settings or {}), ""
            if await _is_pooled(dsn):
                options["statement_cache_size"] = 0
                local = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in session.items())
            else:
                options["server_settings"] = session
            pool = await asyncpg.create_pool(
                dsn, min_size=0, max_size=size, command_timeout=command_timeout_s, reset=_keep, **options
            )
        except (*UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
            raise unreachable(error) from None
        return cls(dsn, pool, options, local)

    async def close(self) -> None:
        """Return after all connections have ended; those that do not answer are cut."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.engine.dispose()
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connected]:
        """A connection of the pool. One whose statement was given up is cut: it may never answer."""
        with _kept_out():
            connection = await self.pool.acquire(timeout=CONNECT_TIMEOUT_S)
        try:
            if self.is_pooled:
                async with connection.transaction():
                    await connection.execute(self._local)
                    yield connection
            else:
                yield connection
        except (TimeoutError, asyncio.CancelledError):
            with suppress(asyncpg.InterfaceError):  # it has ended by itself
                connection.terminate()
            raise
        except asyncpg.ReadOnlySQLTransactionError:
            await self.pool.expire_connections()  # the writable server may be another one by now
            raise
        finally:
            await self.pool.release(connection)

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of one statement."""
        async with self.connection() as connection:
            return await connection.fetch(statement, *args)

    async def fetchrow(self, statement: str, *args: Any) -> asyncpg.Record | None:
        """The first row of one statement."""
        async with self.connection() as connection:
            return await connection.fetchrow(statement, *args)

    async def fetchval(self, statement: str, *args: Any) -> Any:
        """The first column of the first row of one statement."""
        async with self.connection() as connection:
            return await connection.fetchval(statement, *args)

    async def execute(self, statement: str, *args: Any) -> str:
        """Run one statement; its command tag."""
        async with self.connection() as connection:
            return await connection.execute(statement, *args)

    @asynccontextmanager
    async def transaction(self, user: str = "") -> AsyncIterator[Connected]:
        """A transaction in which `user` is the author of the revisions it writes."""
        async with self.connection() as connection, connection.transaction():
            if user:
                await connection.execute("SELECT set_config('connecthub.user', $1, true)", user)
            yield connection

    async def listen(self, heard: Callable[[str], None]) -> Listener:
        """Call `heard` with each payload notified on CHANNEL, over a connection of its own.

        `heard("")` is called when that connection has ended. Not to be had where `is_pooled`.
        """
        with _kept_out():
            connection = await self._connect(command_timeout=CONNECT_TIMEOUT_S)

        def on_notice(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
            heard(str(payload))

        try:
            await connection.add_listener(CHANNEL, on_notice)
        except BaseException:
            connection.terminate()
            raise
        connection.add_termination_listener(lambda _connection: heard(""))
        return Listener(connection)


class Listener:
    """A connection that only hears: it would never notice that nothing can arrive any more."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def ask(self, seconds: float) -> None:
        """Cut it where the server does not answer within `seconds`."""
        try:
            await self._connection.execute("SELECT", timeout=seconds)
        except BaseException:
            self._connection.terminate()
            raise

    async def close(self) -> None:
        """End it; nothing is heard any more."""
        await self._connection.close()


@contextmanager
def _kept_out() -> Iterator[None]:
    """What the server says to who connects may pass: a changed password, a database not yet there."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise ConnectionError(" ".join(str(error).split())) from error


async def _keep(connection: Any) -> None:
    """Asyncpg would reset the session each time a connection goes back; ours never change one."""


async def _is_pooled(dsn: str) -> bool:
    """Whether the session behind a connection is not the one that greeted it."""
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    try:
        async with connection.transaction():
            return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())
    finally:
        connection.terminate()


def alchemy_engine(connect: Callable[[], Awaitable[Any]]) -> AsyncEngine:
    """SQLAlchemy's view of the connections that `connect` makes."""
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        # Unnamed statements: behind a pooler a name may meet another session's statement.
        connect_args={"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""},
        pool_pre_ping=True,
        hide_parameters=True,
    )
