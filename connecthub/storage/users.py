"""Accounts and their sessions. Of a session the database only holds the SHA-256 of its token."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from connecthub.errors import StartupError
from connecthub.security.passwords import hash_password, make_password, verify_password

if TYPE_CHECKING:
    from connecthub.storage.database import Connected, Database

ADMIN = "admin"
SESSION_HOURS = 12
_FIRST_USER_LOCK = 0x61646D696E  # any fixed number, the same for all hubs
_LONGEST_PASSWORD = 1024


async def ensure_admin(db: Database, password_setting: str, data_dir: Path) -> Path | None:
    """Create the account `admin` where there are no users at all.

    Its password is the setting's, or a random one in <data>/admin-password (0600), whose path is returned.
    Of two hubs that start at once one creates account and file. Raises StartupError where the file cannot be
    written.
    """
    if await db.fetchval("SELECT EXISTS (SELECT FROM users)"):
        return None
    password = password_setting or make_password()
    hashed = await asyncio.to_thread(hash_password, password)
    async with db.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _FIRST_USER_LOCK)
        if await connection.fetchval("SELECT EXISTS (SELECT FROM users)"):
            return None
        path = data_dir / "admin-password"
        if not password_setting:
            # Before the commit: an account whose password nobody ever saw would lock everybody out.
            await asyncio.to_thread(_write_password, path, password)
        await connection.execute("INSERT INTO users (username, password_hash) VALUES ($1, $2)", ADMIN, hashed)
    return None if password_setting else path


def _write_password(path: Path, password: str) -> None:
    """Writes the file whole or not at all; one that a failed start left behind is replaced."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp opens with O_EXCL and mode 0600, and renaming follows no link.
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(password + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise
    except OSError as error:
        raise StartupError(
            f"{path} cannot be written: {error.strerror}; make the folder writable for this user, "
            "or set [security] admin_password"
        ) from None


async def check_password(db: Database, username: str, password: str) -> bool:
    """Whether the name exists and has this password; takes as long either way."""
    if len(password) > _LONGEST_PASSWORD:
        return False
    stored = await db.fetchval("SELECT password_hash FROM users WHERE username = $1", username)
    return await asyncio.to_thread(verify_password, stored, password)


async def open_session(connection: Connected, username: str) -> str:
    """Start a session and return its token, the only copy of it. Sessions that have ended are swept out."""
    token = secrets.token_urlsafe(32)
    await connection.execute("DELETE FROM sessions WHERE expires_at < clock_timestamp()")
    await connection.execute(
        "INSERT INTO sessions (token_hash, username, expires_at)"
        " VALUES ($1, $2, clock_timestamp() + make_interval(hours => $3))",
        _digest(token),
        username,
        SESSION_HOURS,
    )
    return token


async def session_user(db: Database, token: str) -> str | None:
    """The name of the user whose session this is, or None."""
    name = await db.fetchval(
        "SELECT username FROM sessions WHERE token_hash = $1 AND expires_at > clock_timestamp()",
        _digest(token),
    )
    return None if name is None else str(name)


async def close_session(connection: Connected, token: str) -> None:
    """End the session at once, in all browsers that hold its token."""
    await connection.execute("DELETE FROM sessions WHERE token_hash = $1", _digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
