"""Passwords of accounts: argon2id hashes. Each call takes a tenth of a second: keep it off event loops."""

from __future__ import annotations

import secrets

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error

_HASHER = PasswordHasher()
# Made with the parameters of _HASHER from a random password that nobody kept: checking against it takes as
# long as against a real one, so that a log-in does not tell which names exist.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$jrMAyF4gZukWdE/0/t5Htg$SSkJNtgPWp/N0qrpmPL7LwO4B2m1DwiM+9f9fcp1Tvo"
# Without characters that are mistaken for each other on paper (0 o, 1 l i).
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP = 4, 6  # 24 characters of 31: 118 bits


def hash_password(password: str) -> str:
    """The argon2id hash of `password`, with its salt and parameters in it."""
    return _HASHER.hash(_bytes(password))


def verify_password(stored: str | None, password: str) -> bool:
    """Whether `password` belongs to the hash `stored`; never raises.

    None (no such user) takes as long as a real hash and is False.
    """
    try:
        matches = _HASHER.verify(_NOBODY if stored is None else stored, _bytes(password))
    except (Argon2Error, ValueError):  # ValueError: a stored text that is no hash
        return False
    return matches and stored is not None


def make_password() -> str:
    """A random password that a person can read out and type, with more than 100 bits of chance."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))


def _bytes(password: str) -> bytes:
    # A form can carry half of a surrogate pair, which UTF-8 refuses.
    return password.encode("utf-8", "surrogatepass")
