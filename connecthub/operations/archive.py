"""The file of a backup: a zip archive, and as its comment the SHA-256 of all that stands before it.

    manifest.json   what it is, how many rows each table has, which keys its secrets need
    database.dump   pg_dump's custom format
    fernet.key      only where it was asked for

Any zip program opens it, and any byte that is cut off or altered is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from connecthub.errors import RefusedError
from connecthub.storage.backup import is_plain

DUMP, KEY, _MANIFEST = "database.dump", "fernet.key", "manifest.json"
_FORMAT = 1
_DIGEST = 64  # characters of SHA-256 in hexadecimal
_PIECE = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What an archive says of itself.

    `schema` is the revision of the tables, `namespace` PostgreSQL's schema that holds them, `canary` a token
    by which a key is seen to fit (None: nothing was encrypted), `going` the runs that were queued or running.
    """

    connecthub: str
    made: str
    schema: str
    namespace: str
    server: str
    pg_dump: int
    counts: dict[str, int]
    going: int
    key_ids: list[str]
    canary: str | None
    format: int = _FORMAT


@contextlib.contextmanager
def new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive to be filled; it is at `path`, mode 0600, when this is left in order, and nowhere otherwise.

    Raises RefusedError where it cannot be written, or something is there already.
    """
    if os.path.lexists(path):
        raise _taken(path)
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w+b") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    archive.comment = b"0" * _DIGEST
                    yield archive
                _seal(file)
            _name(scratch, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)
    except FileExistsError:  # another backup to this name was whole first
        raise _taken(path) from None
    except OSError as error:
        raise RefusedError(
            f"backup {path} cannot be written: {error.strerror}; choose a folder with room that this user "
            "may write to; nothing is left there"
        ) from None


def _taken(path: Path) -> RefusedError:
    return RefusedError(f"{path} exists already: name another file")


def _name(scratch: str, path: Path) -> None:
    """Give the file its name, unless something has it already: then raise FileExistsError."""
    try:
        os.link(scratch, path)
    except FileExistsError:
        raise
    except OSError:  # such as exFAT, which knows no links: an empty file holds the name meanwhile
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            os.rename(scratch, path)
        except BaseException:
            os.unlink(path)
            raise


def _seal(file: IO[bytes]) -> None:
    file.flush()
    digest = _digest(file)
    file.seek(-_DIGEST, os.SEEK_END)
    file.write(digest)
    file.flush()
    os.fsync(file.fileno())


def _digest(file: IO[bytes]) -> bytes:
    """Of all but the last characters, which are its place."""
    left = file.seek(0, os.SEEK_END) - _DIGEST
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (piece := file.read(min(left, _PIECE))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest().encode()


def write_manifest(archive: zipfile.ZipFile, manifest: Manifest) -> None:
    """Add the manifest."""
    archive.writestr(_MANIFEST, json.dumps(asdict(manifest), indent=2))


@contextlib.contextmanager
def opened_archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, Manifest]]:
    """A whole archive and its manifest. Raises RefusedError for anything else."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            whole = _digest(file) == file.read(_DIGEST)
        except OSError as error:
            raise RefusedError(f"backup {path} cannot be read: {error.strerror}; correct the path") from None
        if not whole:
            raise _broken(path, "it is cut off, altered, or no backup of ConnectHub")
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            manifest = _manifest(json.loads(archive.read(_MANIFEST)))
            archive.getinfo(DUMP)
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError):
            raise _broken(path, "this version of ConnectHub cannot read its manifest") from None
        yield archive, manifest


def _manifest(data: dict[str, Any]) -> Manifest:
    manifest = Manifest(**data)
    if manifest.format != _FORMAT or not is_plain([manifest.namespace, *manifest.counts]):
        raise ValueError
    return manifest


def _broken(path: Path, why: str) -> RefusedError:
    return RefusedError(f"backup {path} cannot be used: {why}; take another copy; nothing was changed")
