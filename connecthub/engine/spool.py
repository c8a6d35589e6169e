"""Ends of runs on disk while the database is away, so that a result survives the hub as well."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from connecthub import failpoints
from connecthub.storage.late import LateReturn
from connecthub.storage.runs import Ending

log = logging.getLogger(__name__)

Unstored = Ending | LateReturn


class Spool:
    """The files in `folder`, one per hub: a line of JSON per end, masked like everything that is stored.

    A hub locks its own file for as long as it lives, so that another one, or the next start, knows whose ends
    wait for nobody. Everything here blocks.
    """

    def __init__(self, folder: Path, worker_id: UUID) -> None:
        self._folder = folder
        self._path = folder / f"{worker_id}.jsonl"
        self._file: int | None = None

    def write(self, endings: Sequence[Unstored]) -> None:
        """Append `endings`; they are on disk when this returns. Raises OSError, and then none of them is."""
        file = self._file if self._file is not None else self._create()
        begin = os.fstat(file).st_size
        try:
            left = memoryview(b"".join(_line(ending) for ending in endings))
            while left:  # a disk that is nearly full takes less than it is given
                left = left[os.write(file, left) :]
            failpoints.passing("spool.before_sync")
            os.fsync(file)
        except OSError:
            os.ftruncate(file, begin)  # half a line must not stand before the next one
            raise
        failpoints.passing("spool.after_write")

    def clear(self) -> None:
        """Everything written is stored."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave what is in the file to the next start."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @contextmanager
    def left_behind(self) -> Iterator[list[tuple[UUID, Iterator[Unstored]]]]:
        """The ends of hubs that are no more, each with its `worker_id`; their files go after the block.

        They are read, which may take long, as they are asked for.
        """
        taken = [(path, file) for path in self._files() if (file := _lock(path)) is not None]
        try:
            yield [(UUID(path.stem), _read(path, file)) for path, file in taken]
            for path, _ in taken:
                path.unlink(missing_ok=True)
        finally:
            for _, file in taken:
                file.close()

    def _files(self) -> list[Path]:
        return [path for path in sorted(self._folder.glob("*.jsonl")) if path != self._path]

    def _create(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = _new(self._path)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)  # or the name of the file might not survive
        os.close(folder)
        return self._file


def _new(path: Path) -> int:
    """The file, made and locked. Another hub may have taken it for left behind in between, and deleted it."""
    while True:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file
        os.close(file)


def _lock(path: Path) -> IO[bytes] | None:
    """The file, locked; None where its hub lives, or where another hub has just dealt with it."""
    try:
        file = path.open("rb")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    if not os.fstat(file.fileno()).st_nlink:
        file.close()
        return None
    return file


def _line(ending: Unstored) -> bytes:
    return json.dumps(ending._asdict(), default=datetime.isoformat).encode() + b"\n"


def _read(path: Path, file: IO[bytes]) -> Iterator[Unstored]:
    for number, line in enumerate(file, 1):
        try:
            yield _ending(json.loads(line))
        except (ValueError, TypeError) as error:
            # The end of a run whose hub died while it wrote; that run is LOST.
            log.warning("line %d of spool file %s cannot be read: %s", number, path, type(error).__name__)


def _ending(fields: dict[str, Any]) -> Unstored:
    if "status" not in fields:
        return LateReturn(**fields)
    if fields.get("started_at"):
        fields["started_at"] = datetime.fromisoformat(fields["started_at"])
    # Its hub is gone, and with it the code that may have held a place.
    return Ending(**fields)._replace(returned=True)
