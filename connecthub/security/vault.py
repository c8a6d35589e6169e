"""The vault: encrypts secret_cfg with the keys of the key file, and nothing else ever reads that file.

The key file holds Fernet keys, one a line, the newest first: it encrypts, all of them decrypt. Blank lines
and `#` comments are allowed. No message of this module shows a key, a token or what was in one.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from connecthub.errors import KeyFileError, SecretError

_MAX_KEY_FILE = 64 * 1024
# What copying a token through mails, sheets and shells adds: quotes, any blank, characters of no width.
_PASTED = re.compile("[\\s\"'`‘’“”\u00ad\u180e\u200b-\u200f\u2060\ufeff]+")
# A Fernet token is version 0x80, 8 bytes of time, 16 of IV, whole blocks of 16, 32 of signature, in base64.
_TOKEN_HEAD = "gAAAAA"  # noqa: S105 (how each token begins until the year 2106)
_TOKEN_FIXED = 1 + 8 + 16 + 32
_BLOCK = 16
_CANARY = "ConnectHub"


class Vault:
    """Encrypts and decrypts the secrets of Jobs. Safe to share between threads."""

    def __init__(self, keys: Sequence[Fernet]) -> None:
        self._fernet = MultiFernet(keys)
        self._count = len(keys)

    def __repr__(self) -> str:
        return f"Vault({self._count} keys)"

    @classmethod
    def open(cls, path: Path, *, may_create: bool) -> Vault:
        """The vault on the key file `path`, made (mode 0600) if it is missing and `may_create` is true.

        Pass `may_create=False` as soon as the database holds secrets: a new key could not read them.
        Raises KeyFileError, with the command that helps, for a file that is missing, open to others or no key
        file.
        """
        if _is_missing(path):
            if not may_create:
                raise KeyFileError(
                    f"key file {path} is missing, but the database holds secrets that only it can read: "
                    "restore the key file from the backup"
                )
            _create(path)
        return cls(_parse(path, _read(path)))

    def encrypt(self, data: dict[str, Any]) -> str:
        """The Fernet token of `data` as JSON text. Raises SecretError where it is not plain JSON."""
        try:
            text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            text = ""
        if not text:
            raise SecretError("secret_cfg holds what JSON cannot: use texts, numbers, lists and objects")
        return self._fernet.encrypt(text.encode("utf-8", "surrogatepass")).decode("ascii")

    def decrypt(self, token: str) -> dict[str, Any]:
        """The JSON object in `token`. Raises SecretError that says whether token, key or content is wrong."""
        cleaned = _PASTED.sub("", token)
        wrong = _wrong_shape(cleaned)
        if wrong:
            raise SecretError(f"secret_cfg {wrong}: save the secrets again")
        plain = self._plain(cleaned)
        if plain is None:
            cut = "looks truncated, or " if _may_be_cut(cleaned) else ""
            raise SecretError(
                f"secret_cfg {cut}was saved with another key than the key file holds, or was changed since: "
                "restore the key file from the backup, or save the secrets again"
            )
        try:
            data = json.loads(plain.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise SecretError("secret_cfg must be a JSON object: save the secrets again")
        return data

    def canary(self) -> str:
        """A token to store in the database, by which a later start sees whether its key still fits."""
        return self._fernet.encrypt(_CANARY.encode()).decode("ascii")

    def fits(self, token: str) -> bool:
        """Whether `token`, a canary or a secret_cfg, was encrypted with a key of this vault."""
        return self._plain(_PASTED.sub("", token)) is not None

    def _plain(self, cleaned: str) -> bytes | None:
        try:
            return self._fernet.decrypt(cleaned.encode("ascii"))
        except (InvalidToken, UnicodeEncodeError):
            return None


def _wrong_shape(cleaned: str) -> str:
    """What is wrong with a token by its shape alone, or ""."""
    if not cleaned:
        return "is empty"
    if not re.fullmatch(r"[A-Za-z0-9_=-]+", cleaned):
        return "is no Fernet token"
    if not cleaned.startswith(_TOKEN_HEAD):
        return "is no Fernet token, or looks truncated at its start"
    try:
        size = len(base64.b64decode(cleaned, altchars=b"-_", validate=True))
    except binascii.Error:
        return "looks truncated"
    blocks, rest = divmod(size - _TOKEN_FIXED, _BLOCK)
    return "looks truncated" if blocks < 1 or rest else ""


def _may_be_cut(cleaned: str) -> bool:
    # One cut in 64 leaves whole blocks; a token that ends in padding is whole.
    return not cleaned.endswith("=")


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # whatever it is, reading it tells
    return False


def _create(path: Path) -> None:
    """Makes the key file with a fresh key; of two processes that do so at once the first wins."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Linked into place when complete, so that nobody ever reads half a key; mkstemp makes it 0600.
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(Fernet.generate_key() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(scratch, path)
        finally:
            os.unlink(scratch)
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(
            f"key file {path} cannot be made: {error.strerror}; make {path.parent} writable for this user, "
            "or set [security] fernet_key_path to a place that is"
        ) from None


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
        return f"key file {path} belongs to another user (uid {found.st_uid}): {_chown(path)}"
    mode = stat.S_IMODE(found.st_mode)
    # systemd's LoadCredential and Kubernetes hand a file of root's to another user by one read permission:
    # the group bits are an ACL's mask, or the group of the pod.
    handed_over = mode == 0o440 and found.st_uid == 0 and user != 0
    if mode & 0o077 and not handed_over:
        return f"key file {path} is open to other users (mode {mode:04o}): chmod 600 {shlex.quote(str(path))}"
    return ""


def _chown(path: Path) -> str:
    return f"sudo chown {os.geteuid()} {shlex.quote(str(path))}"


def _parse(path: Path, content: bytes) -> list[Fernet]:
    """The keys of the file in its order. Raises KeyFileError that names the line, never what is in it."""
    keys = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        # The pattern first: base64 decoding on its own skips characters that are no base64.
        if not re.fullmatch(r"[A-Za-z0-9_-]{43}=", key):
            raise KeyFileError(
                f"key file {path} line {number} holds no Fernet key (44 characters of base64): "
                "restore the key file from the backup"
            )
        keys.append(Fernet(key))
    if not keys:
        raise KeyFileError(
            f"key file {path} holds no key: restore it from the backup; "
            f"if no secrets were ever saved: rm {shlex.quote(str(path))}, and the next start makes a new one"
        )
    return keys
