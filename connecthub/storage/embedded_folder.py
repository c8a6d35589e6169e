"""The folder of the embedded PostgreSQL on disk: how it is made, who runs in it, and where its socket lies.

`postmaster.pid` is what a server keeps in its folder while it runs: its process id, its socket folder and its
shared memory. It stays behind after a kill -9 or a power cut, and its number may belong to anybody by then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from connecthub.errors import EmbeddedError
from connecthub.storage.embedded_binaries import WAY_OUT, Account, Binaries, last_words

ROLE = "connecthub"
SUPERUSER = "postgres"
PORT = 5432
# How a program that was started inside a folder names it on Linux without any right to the folders above.
WORKING_FOLDER = Path("/proc/self/cwd")
SOCKET_LIMIT = 103  # bytes of a socket's path: 103 on macOS, 107 on Linux
# Short folders for the socket where the cluster's own path cannot serve; the first one that works is taken.
SOCKET_PLACES = (Path("/run"), Path("/tmp"))  # noqa: S108 - a folder of mode 0700 is made in there
_NEW = "postgres.new-"
# Who gets in, as the hub's role or for maintenance as the superuser, stands in pg_ident.conf.
_HBA = "local all all peer map=connecthub\n"


def server_folder(cluster: Path) -> Path:
    """The cluster's folder as a program started inside it can name it."""
    return WORKING_FOLDER if sys.platform == "linux" else cluster


def create_cluster(cluster: Path, binaries: Binaries, account: Account) -> None:
    """initdb, in a folder beside `cluster` that is renamed when it is whole: a kill leaves no half cluster.

    Raises EmbeddedError where initdb fails, OSError where the data folder cannot be written.
    """
    fresh = Path(tempfile.mkdtemp(prefix=_NEW, dir=cluster.parent))
    try:
        if not account.is_ours:
            os.chown(fresh, account.uid, account.gid, follow_symlinks=False)
        _initdb(fresh, binaries, account)
        write_file(fresh, "pg_hba.conf", _HBA, account)
        fresh.rename(cluster)
        with _open_folder(cluster.parent) as folder:
            os.fsync(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def remove_half_clusters(data_dir: Path) -> None:
    """Remove what `create_cluster` left when it was killed; an initdb that is still at it fails of that."""
    for left_over in data_dir.glob(f"{_NEW}*"):
        shutil.rmtree(left_over, ignore_errors=True)


def _initdb(folder: Path, binaries: Binaries, account: Account) -> None:
    argv = [str(binaries.folder / "initdb"), "-D", str(server_folder(folder)), "-U", SUPERUSER, "--auth=peer"]
    # PostgreSQL's own C.UTF-8 sorts alike on every machine, and needs no locale of the system.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    status, printed = account.run([*argv, *locale], cwd=folder)
    if status != 0:
        raise EmbeddedError(
            f"PostgreSQL could not create its data folder in {folder.parent} as user {account.name} "
            f"({last_words(printed)}): mend that, {WAY_OUT}"
        )


def write_file(cluster: Path, name: str, text: str, account: Account) -> None:
    """Write a file of the cluster as its owner: root must not follow a link that the owner has put there."""
    argv = ["/bin/sh", "-c", 'umask 077; cat >"$0"', name]
    status, printed = account.run(argv, cwd=cluster, text=text)
    if status != 0:
        raise EmbeddedError(
            f"{cluster / name} cannot be written ({last_words(printed)}): mend that, {WAY_OUT}"
        )


def check_cluster(cluster: Path, binaries: Binaries) -> bool:
    """Whether there is a cluster that these programs can run; False where there is none yet.

    Raises EmbeddedError for a folder that is something else, or of another major version.
    """
    try:
        major = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if cluster.exists() and any(cluster.iterdir()):
            raise EmbeddedError(
                f"{cluster} is not empty and no PostgreSQL data folder: move it away, {WAY_OUT}"
            ) from None
        return False
    if major != str(binaries.major):
        raise EmbeddedError(
            f"{cluster} was made by PostgreSQL {major}, the programs here are PostgreSQL {binaries.major}: "
            f"make a backup with the ConnectHub version that ran it, move the folder away and restore the "
            f"backup with this version; {WAY_OUT}"
        )
    return True


@dataclass(frozen=True)
class PidFile:
    """What `postmaster.pid` says; `socket_dir` is relative to the cluster, `shmid` None until it is known."""

    pid: int
    socket_dir: str
    shmid: int | None

    @classmethod
    def read(cls, file: Path) -> PidFile | None:
        """Read `postmaster.pid` or the lock file of a socket; None where it is missing or names nobody."""
        try:
            lines = file.read_bytes().decode(errors="surrogateescape").split("\n")
            pid = int(lines[0])
        except (FileNotFoundError, ValueError):
            return None
        lines += [""] * 8
        memory = lines[6].split()
        return cls(abs(pid), lines[4].strip(), int(memory[1]) if len(memory) == 2 else None)

    def is_live(self, cluster: Path) -> bool:
        """Whether the process is a PostgreSQL server that works in `cluster`, no zombie and nothing else."""
        try:
            return _is_live(self.pid, cluster)
        except (FileNotFoundError, ProcessLookupError):
            return False

    def is_in_the_way(self, cluster: Path) -> bool:
        """Whether PostgreSQL would take the number, in use by something else, for another server."""
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return not self.is_live(cluster)

    def has_memory(self) -> bool:
        """Whether processes of a killed server still use its shared memory: they may write data files."""
        if self.shmid is None or not os.path.exists("/proc/sysvipc/shm"):
            return False
        with open("/proc/sysvipc/shm") as table:
            columns = next(table).split()
            rows = [dict(zip(columns, line.split(), strict=False)) for line in table]
        return any(int(row["shmid"]) == self.shmid and int(row["nattch"]) > 0 for row in rows)


def _is_live(pid: int, cluster: Path) -> bool:
    if sys.platform != "linux":
        listing = subprocess.run(  # noqa: S603 - a number
            ["/bin/ps", "-ww", "-p", str(pid), "-o", "stat=,command="],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        return not listing.startswith("Z") and f"{folder_setting(cluster)} " in listing
    process = Path("/proc") / str(pid)
    argv = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
    if Path(argv[0]).name != "postgres":  # a zombie has no arguments
        return False
    try:
        return os.path.samestat((process / "cwd").stat(), cluster.stat())
    except PermissionError:  # root without CAP_SYS_PTRACE, as in a container
        return folder_setting(cluster) in argv


def folder_setting(cluster: Path) -> str:
    """A setting that tells people, `ps` and `SHOW connecthub.folder` where the cluster really lies."""
    return f"connecthub.folder={cluster}"


def socket_folder(cluster: Path, left_over: PidFile | None, account: Account) -> Path:
    """Where the server puts its socket: in the cluster, or else in a short private folder of its own.

    The cluster's path serves where it is short enough for a socket and passes unharmed through a URL's list
    of hosts. The private folder has the same name each time, as hubs that go on know no other address, unless
    somebody else has that name; and that of a killed server is taken again, if it is still the account's alone.
    """
    path = str(cluster)
    if len(os.fsencode(cluster)) + len(f"/.s.PGSQL.{PORT}") <= SOCKET_LIMIT and not set(path) & set(",:"):
        with contextlib.suppress(UnicodeEncodeError):
            path.encode()
            return cluster
    if left_over is not None and is_private(Path(left_over.socket_dir), account):
        return Path(left_over.socket_dir)
    refusals = []
    for place in SOCKET_PLACES:
        try:
            return _private_folder(place, cluster, account)
        except OSError as error:
            refusals.append(f"{place}: {error.strerror}")
    raise EmbeddedError(
        f"a socket cannot have the path of {cluster}, and no other folder could be made for it "
        f"({'; '.join(refusals)}): choose a short [data] dir, {WAY_OUT}"
    )


def _private_folder(place: Path, cluster: Path, account: Account) -> Path:
    found = cluster.stat()
    folder = place / f"connecthub-{found.st_dev:x}-{found.st_ino:x}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if is_private(folder, account):
            return folder
        folder = Path(tempfile.mkdtemp(prefix="connecthub-", dir=place))  # somebody else has taken the name
    if not account.is_ours:
        os.chown(folder, account.uid, account.gid)
    return folder


def is_private(folder: Path, account: Account) -> bool:
    """Whether an absolute folder is a real one that only `account` (and root) can enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid and not found.st_mode & 0o077
    return own and folder.is_absolute()


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
