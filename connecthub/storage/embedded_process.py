"""The server process of one cluster folder: join it where it runs, launch it where not, end it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

import asyncpg

from connecthub.errors import EmbeddedError
from connecthub.storage.embedded_binaries import WAY_OUT, Account, last_words, usable_binaries, user_name
from connecthub.storage.embedded_folder import (
    PORT,
    ROLE,
    SUPERUSER,
    PidFile,
    check_cluster,
    create_cluster,
    folder_setting,
    remove_half_clusters,
    server_folder,
    socket_folder,
    write_file,
)

log = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0  # a server that was killed replays its log first
STOP_TIMEOUT_S = 30.0
_DEAF_AFTER_S = 10.0  # a server whose socket has been silent for so long is started anew
_ORPHANS_END_S = 10.0  # within which the processes of a killed server notice its death
_IMMEDIATE_S = 10.0
_POLL_S = 0.02
_LOG_BYTES = 10_000_000
_WAL_SEGMENT = 16 << 20  # bytes, the least that a server may have to make
# The server's own log keeps a week, a file per weekday, without statements and rows: they may hold secrets.
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "logging_collector": "on",
    "log_destination": "stderr",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}


class _Answer(enum.Enum):
    READY = "it takes connections"
    BUSY = "it starts, recovers or shuts down"
    SILENT = "nobody answers"


class ServerProcess:
    """The server of `cluster`, run by `account`. The caller sees to it that only one hub at a time acts."""

    def __init__(self, cluster: Path, account: Account, settings: Mapping[str, str]) -> None:
        """`settings` win over the ones that the embedded server runs with. Nothing is started yet."""
        self._cluster = cluster
        self._pid_file = cluster / "postmaster.pid"
        self._account = account
        self._settings = {**_SETTINGS, **settings}
        self._socket_dir = cluster
        self._child: subprocess.Popen[bytes] | None = None

    def url(self, user: str, database: str) -> str:
        """The address of a database for a role, valid after `join` or `launch`."""
        # The port belongs into it: a PGPORT in the environment would change the name of the socket.
        return f"postgresql://{user}@/{database}?host={quote(str(self._socket_dir), safe='/')}&port={PORT}"

    async def join(self) -> bool:
        """Wait until the server that runs here answers; False where none runs. A deaf one is ended."""
        heard = time.monotonic()
        while (running := await asyncio.to_thread(self._running)) is not None:
            self._socket_dir = self._cluster / running.socket_dir  # "." and absolute paths alike
            answer = await self._ask()
            if answer is _Answer.READY:
                return True
            if answer is _Answer.BUSY:
                heard = time.monotonic()
            elif time.monotonic() > heard + _DEAF_AFTER_S:
                log.warning("the PostgreSQL in %s does not answer and is started anew", self._cluster)
                await self.end(STOP_TIMEOUT_S)
            await asyncio.sleep(_POLL_S)
        return False

    def lives(self) -> bool:
        """Whether its process is there; cheap, and says nothing of its answers."""
        return self._pid() is not None

    async def launch(self) -> None:
        """Start the server and wait until it answers; the cluster is created where there is none.

        Raises EmbeddedError with the last words of a server that ended or has not got ready.
        """
        spawning = asyncio.create_task(asyncio.to_thread(self._spawn))
        try:
            with await asyncio.shield(spawning) as output:
                await self._started(output)
        except asyncio.CancelledError:
            with contextlib.suppress(EmbeddedError, OSError):  # the thread goes on all the same
                (await spawning).close()
            raise

    async def _started(self, output: IO[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while await self._ask() is not _Answer.READY:
            if self._child is None or self._child.poll() is not None:
                if await self.join():  # a hub that was killed meanwhile had launched one just before
                    return
                raise EmbeddedError(
                    f"PostgreSQL does not start in {self._cluster} ({self._last_words(output)}): "
                    f"mend that, {WAY_OUT}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"PostgreSQL in {self._cluster} is not ready after {START_TIMEOUT_S:.0f} s and goes on "
                    f"({self._last_words(output)}): start the hub again later, {WAY_OUT}"
                )
            await asyncio.sleep(_POLL_S)

    async def end(self, timeout_s: float) -> None:
        """Stop the server, fast, and after `timeout_s` at once: then its next start has to recover."""
        for number, patience in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, _IMMEDIATE_S)):
            if (pid := await asyncio.to_thread(self._pid)) is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + patience
            while await asyncio.to_thread(self._pid) == pid:
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(_POLL_S)
        if await asyncio.to_thread(self._pid) is not None:
            log.error("the PostgreSQL in %s does not stop", self._cluster)
        elif self._socket_dir != self._cluster:
            with contextlib.suppress(OSError):  # after an immediate stop its socket is still in there
                self._socket_dir.rmdir()

    def _pid(self) -> int | None:
        """The process of the server, which may be a child that has not written its `postmaster.pid` yet."""
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        running = self._running()
        return None if running is None else running.pid

    def _running(self) -> PidFile | None:
        if self._child is not None:
            self._child.poll()  # a child that has ended stays a zombie until somebody asks
        found = PidFile.read(self._pid_file)
        return found if found is not None and found.is_live(self._cluster) else None

    async def _ask(self) -> _Answer:
        try:
            connection = await asyncpg.connect(self.url(SUPERUSER, "postgres"), timeout=5)
        except asyncpg.CannotConnectNowError:
            return _Answer.BUSY
        except asyncpg.TooManyConnectionsError:
            return _Answer.READY
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise EmbeddedError(
                f"the PostgreSQL in {self._cluster} refuses user {user_name(os.geteuid())} ({error}): end "
                f"the process that its postmaster.pid names and start the hub again, {WAY_OUT}"
            ) from error
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError):
            return _Answer.SILENT
        await connection.close()
        return _Answer.READY

    def _spawn(self) -> IO[bytes]:
        """Start the process; its first words go to the nameless file returned here, later ones to its log."""
        binaries = usable_binaries(self._account)
        remove_half_clusters(self._cluster.parent)
        if not check_cluster(self._cluster, binaries):
            create_cluster(self._cluster, binaries, self._account)
        left_over = PidFile.read(self._pid_file)
        self._socket_dir = socket_folder(self._cluster, left_over, self._account)
        self._clear(left_over)
        write_file(self._cluster, "pg_ident.conf", self._user_map(), self._account)
        settings = {
            **self._settings,
            "unix_socket_directories": "." if self._socket_dir == self._cluster else str(self._socket_dir),
        }
        options = [folder_setting(self._cluster), *(f"{name}={value}" for name, value in settings.items())]
        argv = [str(binaries.folder / "postgres"), "-D", str(server_folder(self._cluster))]
        argv += [part for option in options for part in ("-c", option)]
        output = tempfile.TemporaryFile(dir=self._cluster.parent)
        self._child = self._account.popen(argv, cwd=self._cluster, output=output)
        return output

    def _clear(self, left_over: PidFile | None) -> None:
        """Remove what a killed server has left and PostgreSQL would stumble over: lock files, a huge log."""
        if left_over is not None and left_over.is_live(self._cluster):
            return  # launched by a hub that was killed just then: it will be joined
        deadline = time.monotonic() + _ORPHANS_END_S
        while left_over is not None and left_over.has_memory():
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"processes of a killed PostgreSQL server still work in {self._cluster}: end them "
                    f"(ps -C postgres), then start the hub again, {WAY_OUT}"
                )
            time.sleep(_POLL_S)
        for file in (self._pid_file, self._socket_dir / f".s.PGSQL.{PORT}.lock"):
            found = PidFile.read(file)
            if found is None or found.is_in_the_way(self._cluster):
                file.unlink(missing_ok=True)
        for file in (self._cluster / "log").glob("*.log"):
            if file.stat().st_size > _LOG_BYTES:
                file.unlink()

    def _user_map(self) -> str:
        """Who may connect: root, the owner of the data folder, and the user that this hub runs as."""
        lines = []
        for uid in sorted({0, os.geteuid(), self._cluster.parent.stat().st_uid}):
            with contextlib.suppress(KeyError):
                name = pwd.getpwuid(uid).pw_name
                lines += [f'connecthub "{name}" {role}\n' for role in (ROLE, SUPERUSER)]
        return "".join(lines)

    def _last_words(self, output: IO[bytes]) -> str:
        output.seek(0)
        words = output.read().decode(errors="replace")
        logs = sorted((self._cluster / "log").glob("*.log"), key=lambda file: file.stat().st_mtime)
        if "logging collector" in words and logs:  # it says so when it goes on in its log
            words = logs[-1].read_bytes()[-4000:].decode(errors="replace")
            words = words.rpartition("starting PostgreSQL")[2]  # of this start alone
        return last_words(words) + self._full_disk()

    def _full_disk(self) -> str:
        """What a server on a full disk has no room to say."""
        free = shutil.disk_usage(self._cluster).free
        return "" if free > _WAL_SEGMENT else f"; its disk is full, {free >> 20} MiB are left: make room"
