"""Dumps by pg_dump, restored by pg_restore and psql in one transaction."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from connecthub import failpoints
from connecthub.errors import RefusedError
from connecthub.storage.backup import Snapshot, restore_script
from connecthub.storage.failures import way_out
from connecthub.storage.programs import Programs, complaint, in_memory

_PIECE = 1 << 20
# pg_dump 17 and newer sets it for every server; older servers do not know it.
_TOO_NEW = b"SET transaction_timeout = 0;\n"


def dump(programs: Programs, dsn: str, snapshot: Snapshot, target: IO[bytes]) -> None:
    """Write the schema of `snapshot` to `target` in pg_dump's custom format.

    Raises RefusedError with what pg_dump says, OSError where `target` cannot be written.
    """
    options = ["--format=custom", "--no-owner", "--no-acl", f"--schema={snapshot.schema}"]
    process = programs.popen("pg_dump", *options, f"--snapshot={snapshot.id}", dsn=dsn)
    with _ended(process) as said:
        assert process.stdout is not None  # noqa: S101 - a pipe
        shutil.copyfileobj(process.stdout, target, _PIECE)
    if process.returncode != 0:
        raise RefusedError(f"the database could not be dumped: {_said(said())}")


def restore(
    programs: Programs,
    dsn: str,
    opened: Callable[[], IO[bytes]],
    schema: str,
    counts: Mapping[str, int],
    *,
    replace: bool,
    variables: Mapping[str, str],
) -> None:
    """Restore a dump (`opened` opens it anew) in one transaction: all of it, with `counts` rows, or nothing.

    Raises RefusedError with what went wrong; the database is then as it was.
    """
    before, after = restore_script(schema, counts, replace=replace)
    with in_memory(_listing(programs, opened, schema)) as listing:
        options = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
        options += ["-X", "-q", "-o", os.devnull, "-v", "ON_ERROR_STOP=1"]
        psql = programs.popen("psql", *options, dsn=dsn, stdin=subprocess.PIPE)
        with _ended(psql) as psql_said:
            options = ["--no-owner", "--no-acl", "-L", f"/dev/fd/{listing}", "-f", "-"]
            reader = programs.popen("pg_restore", *options, stdin=subprocess.PIPE, pass_fds=[listing])
            with _ended(reader) as reader_said, opened() as source:
                _play(psql, reader, source, before, after)
    if psql.returncode != 0 or reader.returncode != 0:
        said = reader_said() if reader.returncode > 0 else psql_said()
        raise RefusedError(f"nothing was restored, the database is as it was: {_said(said)}")


def _said(printed: str) -> str:
    return f"{complaint(printed)}; {way_out(printed)}"


def _play(
    psql: subprocess.Popen[bytes], reader: subprocess.Popen[bytes], source: IO[bytes], before: str, after: str
) -> None:
    """Give psql what comes before, the dump as `reader` makes SQL of it, and what comes after."""
    assert psql.stdin is not None and reader.stdout is not None  # noqa: S101 - pipes
    with contextlib.suppress(BrokenPipeError):  # psql has ended, and says why
        psql.stdin.write(before.encode())
        with _fed(reader, source):
            for line in reader.stdout:
                if line != _TOO_NEW:
                    psql.stdin.write(line)
        if reader.wait() == 0:  # else psql meets the end of its input, and nothing is committed
            psql.stdin.flush()
            failpoints.passing("restore.before_commit")
            psql.stdin.write(after.encode())
    with contextlib.suppress(BrokenPipeError):
        psql.stdin.close()


def _listing(programs: Programs, opened: Callable[[], IO[bytes]], schema: str) -> str:
    """The dump's table of contents without the schema itself, which is there already."""
    process = programs.popen("pg_restore", "--list", stdin=subprocess.PIPE)
    with _ended(process) as said, opened() as source, _fed(process, source):
        assert process.stdout is not None  # noqa: S101 - a pipe
        lines = process.stdout.read().decode().splitlines(keepends=True)
    if process.returncode != 0:
        raise RefusedError(f"the dump in the archive cannot be read: {complaint(said())}; take another copy")
    own = re.compile(rf" (SCHEMA - {schema}|COMMENT - SCHEMA {schema}) ")
    return "".join(line for line in lines if not own.search(line))


@contextlib.contextmanager
def _fed(process: subprocess.Popen[bytes], source: IO[bytes]) -> Iterator[None]:
    """Copy `source` to the input of `process` meanwhile, as far as it is read. Raises RefusedError where it cannot be."""
    failed: list[Exception] = []

    def feed() -> None:
        assert process.stdin is not None  # noqa: S101 - a pipe
        try:
            with contextlib.suppress(BrokenPipeError):
                shutil.copyfileobj(source, process.stdin, _PIECE)
        except Exception as error:  # whatever it is: with its input left open the process would wait for ever
            failed.append(error)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    except BaseException:
        process.kill()  # nobody reads what it would still write
        raise
    finally:
        thread.join()
    if failed:
        raise RefusedError(f"the archive cannot be read any more: {failed[0]}; take another copy")


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[Callable[[], str]]:
    """See that the process ends, killed where this is left by an error; gives what it complained about."""
    printed: list[bytes] = []

    def read() -> None:
        assert process.stderr is not None  # noqa: S101 - a pipe
        printed.append(process.stderr.read())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield lambda: b"".join(printed).decode(errors="replace")
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
        thread.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
