"""The embedded PostgreSQL: what a hub uses when `[database] url` is empty.

    <data>/postgres         the cluster, of the account that runs it, mode 0700; its own log is in log/
    <data>/postgres.lock    held by whoever starts, joins or leaves the server
    <data>/postgres.users   held, shared, by every hub that uses the server

The server is a process of its own: it outlives a kill -9 of the hub, and the next start uses it again. Where it
ends by itself, the hub that goes on starts it again.
Several hubs (and commands) on one data folder share it, and **the last one to leave stops it**, whoever
started it. The locks are the kernel's, so a killed hub does not count. The server listens on a unix socket
only, which no other user can reach: its folder has mode 0700, and `peer` authentication knows only root, the
owner of the data folder and the user of the hub.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg

from connecthub.errors import EmbeddedError
from connecthub.storage.embedded_binaries import WAY_OUT, Account, service_account, user_name
from connecthub.storage.embedded_folder import ROLE, SUPERUSER
from connecthub.storage.embedded_process import START_TIMEOUT_S, STOP_TIMEOUT_S, ServerProcess

log = logging.getLogger(__name__)

DATABASE = "connecthub"
_LOCK_TIMEOUT_S = START_TIMEOUT_S + 30  # as long as another hub's start may take
_LOOK_S = 2.0  # how late the end of a server is noticed
_SLOWEST_S = 60.0  # between two tries to start it again


class EmbeddedPostgres:
    """A running embedded server, in use by this hub until `stop()`."""

    def __init__(self, data_dir: Path, server: ServerProcess) -> None:
        """Callers use `start()`."""
        self._data_dir = data_dir
        self._server = server
        self._users: int | None = None

    @classmethod
    async def start(cls, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> EmbeddedPostgres:
        """Start the server of `<data_dir>/postgres` or join it where it runs; create what is missing.

        `settings` are server settings (`{"fsync": "off"}`) for a server that this call starts. Takes about a
        second the first time, 0.2 s later, longer where a killed server has to recover. Raises EmbeddedError.
        """
        folder, account = await asyncio.to_thread(_folder_and_account, data_dir)
        embedded = cls(folder, ServerProcess(folder / "postgres", account, settings or {}))
        await embedded.ensure_running()
        return embedded

    @property
    def dsn(self) -> str:
        """URL of the database `connecthub` for its owner, for asyncpg, and with `+asyncpg` for SQLAlchemy."""
        return self._server.url(ROLE, DATABASE)

    @property
    def admin_dsn(self) -> str:
        """URL of the maintenance database for the superuser."""
        return self._server.url(SUPERUSER, "postgres")

    async def ensure_running(self) -> bool:
        """Start the server again where it is gone; True if it had to be started. Raises EmbeddedError."""
        try:
            async with self._transition(_LOCK_TIMEOUT_S):
                started = not await self._server.join()
                try:
                    if started:
                        await self._server.launch()
                    await self._provide()
                except asyncio.CancelledError:
                    if started and self._users is None:  # a start that nobody waits for leaves nothing behind
                        await self._server.end(STOP_TIMEOUT_S)
                    raise
                if self._users is None:
                    self._users = _open_lock(self._data_dir / "postgres.users")
                    fcntl.flock(self._users, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise _unusable(self._data_dir, error) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise EmbeddedError(
                f"the PostgreSQL in {self._data_dir / 'postgres'} runs but cannot be used ({error}): "
                f"mend that, {WAY_OUT}"
            ) from error
        return started

    @contextlib.asynccontextmanager
    async def kept_running(self) -> AsyncIterator[None]:
        """While this is entered a server that has ended is started again."""
        keeping = asyncio.create_task(self._keep_running(), name="embedded PostgreSQL")
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})  # until a start in the middle is one that `stop` can see

    async def _keep_running(self) -> None:
        dsn, failures = self.dsn, 0
        while True:
            await asyncio.sleep(min(_LOOK_S * (1 << min(failures, 10)), _SLOWEST_S))
            try:
                if not failures:
                    if await asyncio.to_thread(self._server.lives):
                        continue
                    log.warning("the embedded PostgreSQL has ended, and is started again")
                await self._start_again()
            except Exception as error:  # whatever it is, the next try may be the one that succeeds
                failures += 1
                if failures == 1:
                    unforeseen = None if isinstance(error, EmbeddedError) else error
                    log.error("the embedded PostgreSQL does not start: %s", error, exc_info=unforeseen)
                continue
            failures = 0
            log.info("the embedded PostgreSQL runs again")
            if self.dsn != dsn:
                log.error("the embedded PostgreSQL has its socket in another folder now: restart the hub")

    async def _start_again(self) -> None:
        """Never on a new cluster, which would be an empty one: its disk may be away."""
        cluster = self._data_dir / "postgres"
        if not await asyncio.to_thread(os.path.exists, cluster / "PG_VERSION"):
            raise EmbeddedError(f"{cluster} is not there any more: put it back")
        await self.ensure_running()

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Leave the server, and stop it if no other hub uses it: fast, and after `timeout_s` at once.

        Call it after the connections of this hub are closed; others are cut off. A second call does nothing.
        """
        if self._users is None:
            return
        users, self._users = self._users, None
        try:
            async with self._transition(timeout_s):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await self._server.end(timeout_s)
        except BlockingIOError:
            log.info("the embedded PostgreSQL stays up for another hub on %s", self._data_dir)
        except (EmbeddedError, OSError) as error:
            log.error("the embedded PostgreSQL was not stopped: %s", error)
        finally:
            os.close(users)

    @contextlib.asynccontextmanager
    async def _transition(self, timeout_s: float) -> AsyncIterator[None]:
        path = self._data_dir / "postgres.lock"
        descriptor = _open_lock(path)
        try:
            deadline = time.monotonic() + timeout_s
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"another process has been holding {path} for {timeout_s:.0f} s, to start or stop "
                        f"the PostgreSQL there: end it (lsof {path}), {WAY_OUT}"
                    )
                await asyncio.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    async def _provide(self) -> None:
        """Make the role and its database where they are missing: at first, or after a start cut short."""
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", ROLE):
                await connection.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        finally:
            await connection.close()


def _folder_and_account(data_dir: Path) -> tuple[Path, Account]:
    try:
        folder = data_dir.resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder, service_account(folder, folder / "postgres")
    except OSError as error:
        raise _unusable(data_dir, error) from error


def _open_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:  # made by root, to be used by the owner of the folder later
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unusable(data_dir: Path, error: OSError) -> EmbeddedError:
    return EmbeddedError(
        f"the embedded PostgreSQL cannot use {error.filename or data_dir} ({error.strerror or error}): "
        f"make room or let user {user_name(os.geteuid())} write there, choose another [data] dir, {WAY_OUT}"
    )
