"""The key file: Fernet keys, one a line, the newest first.

The newest encrypts, all of them decrypt. Blank lines and `#` comments are allowed; `# made <time>` above a
key tells its age. A key is called by its id, a piece of its hash. No message shows a key.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.fernet import Fernet

from connecthub.errors import KeyFileError

_MAX_KEY_FILE = 64 * 1024
_MADE = "# made "


@dataclass(frozen=True)
class Key:
    """One key of the file. `made` is None where the file does not tell."""

    text: str = field(repr=False)
    made: datetime | None

    @property
    def id(self) -> str:
        """What people call the key by; it tells nothing of the key."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    @property
    def fernet(self) -> Fernet:
        """What encrypts and decrypts with it."""
        return Fernet(self.text)


def read_keys(path: Path) -> list[Key]:
    """The keys of the file, the newest first.

    Raises KeyFileError, with the command that helps, for a file that is missing, open to others or none.
    """
    return parse_keys(path, _read(path))


def as_text(keys: Sequence[Key]) -> str:
    """What a key file with these keys holds."""
    return "".join((f"{_MADE}{key.made.isoformat()}\n" if key.made else "") + f"{key.text}\n" for key in keys)


def stamp(path: Path) -> object:
    """Something that changes whenever the file does; None where it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)


def make_key() -> Key:
    """A fresh key."""
    return Key(Fernet.generate_key().decode(), datetime.now(UTC).replace(microsecond=0))


def is_missing(path: Path) -> bool:
    """Whether nothing at all is at `path`."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # whatever it is, reading it tells
    return False


def create(path: Path, keys: Sequence[Key]) -> bool:
    """Make the key file; of two processes that do so at once the first wins. False where one is there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = _scratch(path, keys)
        try:
            os.link(scratch, path)  # when complete, so that nobody ever reads half a key
        except FileExistsError:
            return False
        finally:
            os.unlink(scratch)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error, "made") from None
    return True


def replace(path: Path, keys: Sequence[Key]) -> None:
    """Put a file with these keys in the place of the one that is there, whole or not at all."""
    target = path.resolve()  # a link stays a link
    try:
        owner = target.stat()
        scratch = _scratch(target, keys)
        try:
            if owner.st_uid != os.geteuid():  # root, for the hub's own user
                os.chown(scratch, owner.st_uid, owner.st_gid)
            os.replace(scratch, target)
        except OSError:
            os.unlink(scratch)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise _unwritable(path, error, "changed") from None


def _scratch(path: Path, keys: Sequence[Key]) -> str:
    """A file beside `path` with these keys, on disk; mkstemp makes it 0600."""
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(as_text(keys).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(scratch)
        raise
    return scratch


def _unwritable(path: Path, error: OSError, done: str) -> KeyFileError:
    return KeyFileError(
        f"key file {path} cannot be {done}: {error.strerror}; make {path.parent} writable for this user "
        "and see that its disk has room, or set [security] fernet_key_path to a place that is"
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> bytes:
    """The content of the key file, after its kind, owner and mode were checked on the open file."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait. Links are followed: Kubernetes mounts secrets as links.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise KeyFileError(f"key file {path} cannot be read by this user: {_chown(path)}") from None
    except OSError as error:
        raise KeyFileError(
            f"key file {path} cannot be read: {error.strerror}; restore it from the backup, "
            "or correct [security] fernet_key_path"
        ) from None
    try:
        problem = _problem(path, os.fstat(handle), os.geteuid())
        if problem:
            raise KeyFileError(problem)
        return os.read(handle, _MAX_KEY_FILE)
    finally:
        os.close(handle)


def _problem(path: Path, found: os.stat_result, user: int) -> str:
    """Why a key file must not be used by `user`, with the command that mends it, or ""."""
    if not stat.S_ISREG(found.st_mode):
        return f"key file {path} is no regular file: correct [security] fernet_key_path"
    if found.st_uid not in (user, 0):
        # Root at the command line means the hub's own file: given to root, the hub could not read it.
        as_owner = (
            f"run this as that user (sudo -u '#{found.st_uid}'), or if root runs the hub " if not user else ""
        )
        return f"key file {path} belongs to another user (uid {found.st_uid}): {as_owner}{_chown(path)}"
    mode = stat.S_IMODE(found.st_mode)
    # systemd's LoadCredential and Kubernetes hand a file of root's to another user by one read permission:
    # the group bits are an ACL's mask, or the group of the pod.
    handed_over = mode == 0o440 and found.st_uid == 0 and user != 0
    if mode & 0o077 and not handed_over:
        return f"key file {path} is open to other users (mode {mode:04o}): chmod 600 {shlex.quote(str(path))}"
    return ""


def _chown(path: Path) -> str:
    return f"sudo chown {os.geteuid()} {shlex.quote(str(path))}"


def parse_keys(path: Path, content: bytes) -> list[Key]:
    """The keys of the file in its order. Raises KeyFileError that names the line, never what is in it."""
    keys: list[Key] = []
    made: datetime | None = None
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        text = line.strip()
        if not text:
            continue
        if text.startswith("#"):
            made = _time(text)
            continue
        # The pattern first: base64 decoding on its own skips characters that are no base64.
        if not re.fullmatch(r"[A-Za-z0-9_-]{43}=", text):
            raise KeyFileError(
                f"key file {path} line {number} holds no Fernet key (44 characters of base64): "
                "restore the key file from the backup"
            )
        keys.append(Key(text, made))
        made = None
    if not keys:
        raise KeyFileError(
            f"key file {path} holds no key: restore it from the backup; "
            f"if no secrets were ever saved: rm {shlex.quote(str(path))}, and the next start makes a new one"
        )
    return keys


def _time(comment: str) -> datetime | None:
    if comment.startswith(_MADE):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(comment.removeprefix(_MADE)).astimezone(UTC)
    return None


@contextlib.contextmanager
def kept_if_all_goes_well(path: Path, keys: Sequence[Key]) -> Iterator[None]:
    """Make the key file with these keys, where there are any; an error inside takes it away again."""
    made = bool(keys) and create(path, keys)
    try:
        yield
    except BaseException:
        if made:
            path.unlink(missing_ok=True)
        raise
