"""Log-ins and sessions. Of a session the database only holds the SHA-256 of its token.

A session ends after IDLE_HOURS without a page being opened, and LIFE_HOURS after the log-in whatever happens.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from connecthub.errors import RefusedError
from connecthub.security.passwords import verify_password
from connecthub.storage import audit
from connecthub.storage.schema import is_known, schema_revisions

if TYPE_CHECKING:
    import asyncpg

    from connecthub.storage.audit import Actor
    from connecthub.storage.database import Connected, Database

IDLE_HOURS = 12
LIFE_HOURS = 7 * 24
WRONG_AT_MOST = 10
THROTTLE_MINUTES = 15
_LONGEST_PASSWORD = 1024
_LONGEST_BROWSER = 200


class ThrottledError(RefusedError):
    """Too many wrong passwords for this account or from this address; `wait_s` until the next may be tried."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many wrong passwords; try again in {wait_s} s")
        self.wait_s = wait_s


@dataclass(frozen=True)
class Visit:
    """What one request's session tells: whose it is, and the state that every page shows."""

    session_id: int
    username: str
    role: str
    must_change_password: bool
    language: str | None
    timezone: str | None
    theme: str
    paused_at: datetime | None
    paused_by: str | None
    is_outdated: bool  # a newer version has migrated the database


# last_seen_at moves once a minute at most, so that reading pages costs no writes.
_VISIT = f"""
WITH visit AS (
    SELECT s.id, s.last_seen_at, u.username, u.role, u.must_change_password, u.language,
           coalesce(u.timezone, s.timezone) AS timezone, u.theme
    FROM sessions s JOIN users u USING (username)
    WHERE s.token_hash = $1 AND s.expires_at > clock_timestamp() AND NOT u.disabled
      AND s.last_seen_at > clock_timestamp() - interval '{IDLE_HOURS} hours'
), seen AS (
    UPDATE sessions s SET last_seen_at = clock_timestamp() FROM visit v
    WHERE s.id = v.id AND $2 AND v.last_seen_at < clock_timestamp() - interval '1 minute'
)
SELECT v.id AS session_id, v.username, v.role, v.must_change_password, v.language, v.timezone, v.theme,
       h.paused_at, h.paused_by, NOT {is_known("$3")} AS is_outdated
FROM visit v, hub_state h
"""


# What another log-in is about to delete is left to it: two that swept in another order could wait for each other.
_SWEEP_SESSIONS = f"""
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions WHERE expires_at < clock_timestamp()
        OR last_seen_at < clock_timestamp() - interval '{IDLE_HOURS} hours' FOR UPDATE SKIP LOCKED)
"""
_SWEEP_FAILURES = f"""
DELETE FROM login_failures WHERE ctid IN (
    SELECT ctid FROM login_failures WHERE at < clock_timestamp() - interval '{THROTTLE_MINUTES} minutes'
    FOR UPDATE SKIP LOCKED)
"""


async def read_visit(db: Database, token: str, *, is_seen: bool) -> Visit | None:
    """The session of this token, None where it has ended. `is_seen`: a person is there, not only an open page."""
    row = await db.fetchrow(_VISIT, _digest(token), is_seen, schema_revisions())
    return None if row is None else Visit(**row)


async def log_in(
    db: Database, username: str, password: str, address: str | None, browser: str, timezone: str | None
) -> str | None:
    """The token of a new session, None where name or password is wrong; takes as long either way.

    Raises ThrottledError.
    """
    checked = await _check(db, username, password, address)
    async with db.transaction() as connection:
        if not await _settle(connection, username, address, checked, action="login.failed"):
            return None
        token = secrets.token_urlsafe(32)
        await connection.execute(_SWEEP_SESSIONS)
        await connection.execute(
            "INSERT INTO sessions (token_hash, username, expires_at, address, browser, timezone)"
            f" VALUES ($1, $2, clock_timestamp() + interval '{LIFE_HOURS} hours', $3, $4, $5)",
            _digest(token),
            username,
            address,
            browser[:_LONGEST_BROWSER],
            timezone,
        )
        await connection.execute(
            "UPDATE users SET last_login_at = clock_timestamp() WHERE username = $1", username
        )
        await audit.record(connection, username, "login", "", address)
    return token


async def confirm_password(db: Database, actor: Actor, password: str) -> bool:
    """Whether the user knows the password of the own account; a wrong one counts as a wrong log-in does.

    Raises ThrottledError.
    """
    checked = await _check(db, actor.username, password, actor.address)
    async with db.transaction() as connection:
        return await _settle(connection, actor.username, actor.address, checked, action="password.failed")


async def log_out(db: Database, token: str, actor: Actor) -> None:
    """End the session at once, in all browsers that hold its token."""
    async with db.transaction() as connection:
        await connection.execute("DELETE FROM sessions WHERE token_hash = $1", _digest(token))
        await audit.record(connection, actor.username, "logout", "", actor.address)


async def forget_session(db: Database, token: str) -> None:
    """End the session that a new log-in takes the place of."""
    await db.execute("DELETE FROM sessions WHERE token_hash = $1", _digest(token))


async def user_sessions(db: Database, username: str) -> list[asyncpg.Record]:
    """The sessions of a user that are open, the one seen last first."""
    return await db.fetch(
        "SELECT id, created_at, last_seen_at, address, browser FROM sessions"
        " WHERE username = $1 AND expires_at > clock_timestamp()"
        f" AND last_seen_at > clock_timestamp() - interval '{IDLE_HOURS} hours' ORDER BY last_seen_at DESC",
        username,
    )


async def end_sessions(
    db: Database, username: str, actor: Actor, *, only: int | None = None, keep: int | None = None
) -> int:
    """End the user's sessions (`only` this one, or all but `keep`); how many those were."""
    async with db.transaction() as connection:
        rows = await connection.fetch(
            "DELETE FROM sessions WHERE username = $1 AND ($2::bigint IS NULL OR id = $2)"
            " AND id IS DISTINCT FROM $3 RETURNING id",
            username,
            only,
            keep,
        )
        if rows:
            detail = {"count": len(rows)}
            await audit.record(connection, actor.username, "user.sessions", username, actor.address, detail)
    return len(rows)


async def _check(db: Database, username: str, password: str, address: str | None) -> str | None:
    """The hash that the password belongs to, None where it is wrong.

    Looks at the throttle first: a hash costs 64 MiB and a tenth of a second.
    """
    async with db.connection() as connection:
        await _refuse_throttled(connection, username, address)
    stored = await db.fetchval(
        "SELECT password_hash FROM users WHERE username = $1 AND NOT disabled", username
    )
    # One that no account can have is checked as an empty one: it takes as long.
    tried = password if len(password) <= _LONGEST_PASSWORD else ""
    is_right = await asyncio.to_thread(verify_password, stored, tried)
    return str(stored) if is_right else None


async def _settle(
    connection: Connected, username: str, address: str | None, checked: str | None, *, action: str
) -> bool:
    """Tell the outcome of a check and count a wrong one, in turn with all others of this account and address.

    Many that were checked at once get no more answers than the throttle allows: the rest raises ThrottledError.
    """
    for part in (f"account {username}", f"address {_network(address)}"):
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", f"connecthub login {part}"
        )
    await _refuse_throttled(connection, username, address)
    account = account_digest(username)
    # Locked, and compared with what was checked: a password that was just changed opens nothing any more.
    if checked is not None and await connection.fetchval(
        "SELECT true FROM users WHERE username = $1 AND password_hash = $2 AND NOT disabled FOR UPDATE",
        username,
        checked,
    ):
        await connection.execute("DELETE FROM login_failures WHERE account = $1", account)
        return True
    await connection.execute(_SWEEP_FAILURES)
    await connection.execute(
        "INSERT INTO login_failures (account, address) VALUES ($1, $2)", account, _network(address)
    )
    # A name that no account has may be a password typed into the wrong field: not kept.
    known = await connection.fetchval("SELECT username FROM users WHERE username = $1", username)
    await audit.record(connection, "", action, known or "", address)
    return False


async def _refuse_throttled(connection: Connected, username: str, address: str | None) -> None:
    # Not audited: the ten that led here are, and whoever goes on should not fill the audit.
    wait_s = await _wait_s(connection, username, address)
    if wait_s:
        raise ThrottledError(wait_s)


async def _wait_s(connection: Connected, username: str, address: str | None) -> int:
    """Seconds until account and address may be tried again, 0 for now."""
    longest = 0
    for column, value in (("account", account_digest(username)), ("address", _network(address))):
        # The tenth newest wrong one: when it leaves the span that is counted, there are nine.
        wait_s = await connection.fetchval(
            f"SELECT ceil(extract(epoch FROM at - clock_timestamp()) + {THROTTLE_MINUTES * 60})::int"
            f" FROM login_failures WHERE {column} = $1"
            f" AND at > clock_timestamp() - interval '{THROTTLE_MINUTES} minutes'"
            f" ORDER BY at DESC OFFSET {WRONG_AT_MOST - 1} LIMIT 1",
            value,
        )
        longest = max(longest, wait_s or 0)
    return longest


def account_digest(username: str) -> bytes:
    """How a name stands in login_failures."""
    return hashlib.sha256(username.encode("utf-8", "surrogatepass")).digest()


def _network(address: str | None) -> str:
    """What is counted as one address: of IPv6 the /64, which one machine has all of."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return (address or "")[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network((int(parsed), 64), strict=False))
    return str(parsed)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
