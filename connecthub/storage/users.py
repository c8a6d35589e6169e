"""Accounts: who may do what, their passwords and preferences."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from connecthub.errors import NotFoundError, RefusedError, StartupError
from connecthub.security.passwords import hash_password, make_password
from connecthub.storage import audit
from connecthub.storage.sessions import account_digest

if TYPE_CHECKING:
    from connecthub.storage.audit import Actor
    from connecthub.storage.database import Connected, Database

ROLES: Final = ("viewer", "operator", "admin")  # each may do what those before it may
ADMIN = "admin"
LONGEST_NAME = 64
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 1024
_USERS_LOCK = 0x61646D696E  # any fixed number, the same for all hubs


_NAME = re.compile(r"\w[\w.@-]*")


def is_username(name: str) -> bool:
    """Whether a new account may have this name."""
    return len(name) <= LONGEST_NAME and _NAME.fullmatch(name) is not None


def password_problem(password: str, username: str) -> str | None:
    """What is wrong with a password that a person chose: `length`, `weak`, or None for nothing."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        return "length"
    if username.lower() in password.lower() or len(set(password)) < 4:
        return "weak"
    return None


class LastAdminError(RefusedError):
    """Without this account nobody could manage the others."""


class NameTakenError(RefusedError):
    """There is an account of this name."""


async def ensure_admin(db: Database, password_setting: str, data_dir: Path) -> Path | None:
    """Create the account `admin` where there are no users at all.

    Its password is the setting's, or a random one in <data>/admin-password (0600), whose path is returned and
    which must be changed at the first log-in. Of two hubs that start at once one creates account and file.
    Raises StartupError where the file cannot be written.
    """
    if await db.fetchval("SELECT EXISTS (SELECT FROM users)"):
        return None
    password = password_setting or make_password()
    hashed = await asyncio.to_thread(hash_password, password)
    async with db.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _USERS_LOCK)
        if await connection.fetchval("SELECT EXISTS (SELECT FROM users)"):
            return None
        path = password_file(data_dir)
        if not password_setting:
            # Before the commit: an account whose password nobody ever saw would lock everybody out.
            await asyncio.to_thread(_write_password, path, password)
        await connection.execute(
            "INSERT INTO users (username, password_hash, role, must_change_password)"
            " VALUES ($1, $2, 'admin', $3)",
            ADMIN,
            hashed,
            not password_setting,
        )
    return None if password_setting else path


def password_file(data_dir: Path) -> Path:
    """Where the first password is, until it has been changed."""
    return data_dir / "admin-password"


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


async def read_user(db: Database, username: str) -> asyncpg.Record | None:
    """An account without its password hash."""
    return await db.fetchrow(
        "SELECT username, role, disabled, must_change_password, language, timezone, theme, created_at,"
        " last_login_at FROM users WHERE username = $1",
        username,
    )


async def list_users(db: Database) -> list[asyncpg.Record]:
    """All accounts by name."""
    return await db.fetch(
        "SELECT username, role, disabled, must_change_password, last_login_at FROM users ORDER BY username"
    )


async def add_user(
    db: Database, username: str, role: str, password: str, actor: Actor, *, must_change: bool
) -> None:
    """Create an account. Raises NameTakenError."""
    hashed = await asyncio.to_thread(hash_password, password)
    try:
        async with db.transaction() as connection:
            await connection.execute(
                "INSERT INTO users (username, password_hash, role, must_change_password)"
                " VALUES ($1, $2, $3, $4)",
                username,
                hashed,
                role,
                must_change,
            )
            await audit.record(
                connection, actor.username, "user.create", username, actor.address, {"role": role}
            )
    except asyncpg.UniqueViolationError:
        raise NameTakenError(f"there is a user {username} already") from None


async def set_role(db: Database, username: str, role: str, actor: Actor) -> None:
    """Give another role. Raises NotFoundError, LastAdminError."""
    async with db.transaction() as connection:
        before = await _locked(connection, username)
        if before["role"] == role:
            return
        await connection.execute("UPDATE users SET role = $2 WHERE username = $1", username, role)
        await _refuse_the_last_admin(connection, before)
        detail = {"role": [before["role"], role]}
        await audit.record(connection, actor.username, "user.role", username, actor.address, detail)


async def set_disabled(db: Database, username: str, disabled: bool, actor: Actor) -> None:
    """Disable an account, which ends its sessions, or enable it. Raises NotFoundError, LastAdminError."""
    async with db.transaction() as connection:
        before = await _locked(connection, username)
        if before["disabled"] == disabled:
            return
        await connection.execute("UPDATE users SET disabled = $2 WHERE username = $1", username, disabled)
        await _refuse_the_last_admin(connection, before)
        if disabled:
            await connection.execute("DELETE FROM sessions WHERE username = $1", username)
        action = "user.disable" if disabled else "user.enable"
        await audit.record(connection, actor.username, action, username, actor.address)


async def set_password(
    db: Database, username: str, password: str, actor: Actor, *, must_change: bool
) -> None:
    """Give a new password: all sessions end, and what throttled the account. Raises NotFoundError."""
    hashed = await asyncio.to_thread(hash_password, password)
    async with db.transaction() as connection:
        await _locked(connection, username)
        await connection.execute(
            "UPDATE users SET password_hash = $2, must_change_password = $3 WHERE username = $1",
            username,
            hashed,
            must_change,
        )
        await connection.execute("DELETE FROM sessions WHERE username = $1", username)
        await connection.execute("DELETE FROM login_failures WHERE account = $1", account_digest(username))
        await audit.record(connection, actor.username, "user.password", username, actor.address)


async def set_preferences(
    db: Database, username: str, *, language: str | None, timezone: str | None, theme: str
) -> None:
    """How the admin looks to this user; None for the browser's language or zone."""
    await db.execute(
        "UPDATE users SET language = $2, timezone = $3, theme = $4 WHERE username = $1",
        username,
        language,
        timezone,
        theme,
    )


async def set_language(db: Database, username: str, language: str) -> None:
    """The language of the admin for this user."""
    await db.execute("UPDATE users SET language = $2 WHERE username = $1", username, language)


async def _locked(connection: Connected, username: str) -> asyncpg.Record:
    """The account, while no other transaction changes any: two admins who disable each other are one too many."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _USERS_LOCK)
    row = await connection.fetchrow("SELECT role, disabled FROM users WHERE username = $1", username)
    if row is None:
        raise NotFoundError(f"there is no user {username}")
    return row


async def _refuse_the_last_admin(connection: Connected, before: asyncpg.Record) -> None:
    """Raises LastAdminError, which rolls back, where the account was an admin `before` and no other one is left."""
    if before["role"] != ADMIN or before["disabled"]:
        return  # another account's change takes no admin away, be there one or none
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM users WHERE role = 'admin' AND NOT disabled)"
    ):
        raise LastAdminError("this is the last admin who can log in; give the role to somebody else first")
