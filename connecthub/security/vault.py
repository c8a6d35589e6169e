"""The vault: encrypts secret_cfg with the keys of the key file.

A changed key file is noticed by `look`, at each encryption and at each token that is not kept, so that keys
can be rotated under running hubs. No message of this module shows a key, a token or what was in one.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from connecthub.errors import KeyFileError, SecretError
from connecthub.security import keyfile

log = logging.getLogger(__name__)

# What copying a token through mails, sheets and shells adds: quotes, any blank, characters of no width.
_PASTED = re.compile("[\\s\"'`‘’“”\u00ad\u180e\u200b-\u200f\u2060\ufeff]+")
# A Fernet token is version 0x80, 8 bytes of time, 16 of IV, whole blocks of 16, 32 of signature, in base64.
_TOKEN_HEAD = "gAAAAA"  # noqa: S105 (how each token begins until the year 2106)
_TOKEN_FIXED = 1 + 8 + 16 + 32
_BLOCK = 16
_CANARY = "ConnectHub"
_KNOWN = 10_000  # tokens whose content is kept in memory, as the keys are


class Vault:
    """Encrypts and decrypts the secrets of Jobs. Safe to share between threads."""

    def __init__(self, keys: Sequence[Fernet]) -> None:
        """A vault of fixed keys; `open` is what a hub uses."""
        self._use(keys, ())
        self._path: Path | None = None
        self._stamp: object = None
        self._lock = threading.Lock()

    def _use(self, keys: Sequence[Fernet], ids: Sequence[str]) -> None:
        self._newest, self._fernet, self._count = keys[0], MultiFernet(keys), len(keys)
        self.key_ids = tuple(ids)  # of the key file, the newest first
        # A run takes 40 us for its token otherwise; with other keys everything is looked at anew.
        self._known = lru_cache(_KNOWN)(self._text)

    def __repr__(self) -> str:
        return f"Vault({self._count} keys)"

    @classmethod
    def open(cls, path: Path, *, may_create: bool) -> Vault:
        """The vault on the key file `path`, made (mode 0600) if it is missing and `may_create` is true.

        Pass `may_create=False` as soon as the database holds secrets: a new key could not read them.
        Raises KeyFileError, with the command that helps, for a file that is missing, open to others or no key
        file.
        """
        if keyfile.is_missing(path):
            if not may_create:
                raise KeyFileError(
                    f"key file {path} is missing, but the database holds secrets that only it can read: "
                    "restore the key file from the backup"
                )
            keyfile.create(path, [keyfile.make_key()])
        stamp = keyfile.stamp(path)
        keys = keyfile.read_keys(path)
        vault = cls([key.fernet for key in keys])
        vault._use([key.fernet for key in keys], [key.id for key in keys])
        vault._path, vault._stamp = path, stamp
        return vault

    def look(self) -> bool:
        """Read the key file again where it has changed; whether other keys are used from now on.

        A file that cannot be used is logged once, and the keys stay.
        """
        if self._path is None or keyfile.stamp(self._path) == self._stamp:
            return False
        with self._lock:
            self._stamp = keyfile.stamp(self._path)
            try:
                keys = keyfile.read_keys(self._path)
            except KeyFileError as error:
                log.error("the keys stay as they are: %s", error)
                return False
            before = self.key_ids
            self._use([key.fernet for key in keys], [key.id for key in keys])
        if self.key_ids != before:
            log.info("key file %s has changed; newest key: %s", self._path, self.key_ids[0])
        return self.key_ids != before

    def require_fit(self, tokens: Sequence[str]) -> None:
        """Raise KeyFileError where `tokens`, some of what the database holds, are all of other keys."""
        # One token that was broken by itself is its Job's trouble; a wrong key fits none.
        if tokens and not any(self.fits(token) for token in tokens):
            raise KeyFileError(
                f"key file {self._path} does not fit the secrets in the database; put back the key they were "
                "saved with, or set [security] fernet_key_path to it"
            )

    def encrypt(self, data: dict[str, Any]) -> str:
        """The Fernet token of `data` as JSON text. Raises SecretError where it is not plain JSON."""
        try:
            text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            text = ""
        if not text:
            raise SecretError("secret_cfg holds what JSON cannot: use texts, numbers, lists and objects")
        self.look()
        return self._newest.encrypt(text.encode("utf-8", "surrogatepass")).decode("ascii")

    def decrypt(self, token: str) -> dict[str, Any]:
        """The JSON object in `token`. Raises SecretError that says whether token, key or content is wrong.

        A token that is kept is read without a look at the key file, for which each run would wait.
        """
        data: dict[str, Any] = json.loads(self._known(token))
        return data

    def _text(self, token: str) -> str:
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
            text = plain.decode("utf-8", "surrogatepass")
            is_object = isinstance(json.loads(text), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise SecretError("secret_cfg must be a JSON object: save the secrets again")
        return text

    def canary(self) -> str:
        """A token to store in the database, by which a later start sees whether its key still fits."""
        self.look()
        return self._newest.encrypt(_CANARY.encode()).decode("ascii")

    def fits(self, token: str) -> bool:
        """Whether `token`, a canary or a secret_cfg, was encrypted with a key of this vault."""
        return self._plain(_PASTED.sub("", token)) is not None

    def is_of_newest(self, token: str) -> bool:
        """Whether `token` needs no key but the newest."""
        try:
            self._newest.extract_timestamp(_PASTED.sub("", token))  # checks the signature, decrypts nothing
        except (InvalidToken, ValueError):  # ValueError: characters that are not ASCII
            return False
        return True

    def renew(self, token: str) -> str | None:
        """The same under the newest key, at the time it was first made; None where no key fits."""
        try:
            return self._fernet.rotate(_PASTED.sub("", token)).decode("ascii")
        except (InvalidToken, ValueError):
            return None

    def _plain(self, cleaned: str) -> bytes | None:
        self.look()
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
