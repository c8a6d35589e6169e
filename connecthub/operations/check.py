"""`connecthub check`: one line per thing that has to be right, and what to do where it is not.

Nothing is changed, made or migrated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from connecthub.errors import DatabaseError, KeyFileError
from connecthub.operations.check_jobs import plugin_findings, schedule_findings, secret_findings
from connecthub.operations.finding import Finding, fault, ok, warning
from connecthub.security import keyfile
from connecthub.security.vault import Vault
from connecthub.storage import adoption, health, hubs, keys
from connecthub.storage.database import Database
from connecthub.storage.rights import lacking_rights
from connecthub.storage.schema import schema_head, schema_revisions

if TYPE_CHECKING:
    from connecthub.config import Settings
    from connecthub.storage.jobs import Row

_CLOCK, _CLOCK_TOO_FAR = timedelta(seconds=2), timedelta(seconds=60)
_TICK_S = 120


async def database_findings(settings: Settings, db: Database) -> AsyncIterator[Finding]:
    """All lines from `database` on; those that need the tables only where the schema is of this version."""
    before = datetime.now(UTC)
    server = await health.read_server(db)
    yield _database(server)
    yield _clock(server["now"], before, datetime.now(UTC))
    async with db.connection() as connection:
        try:
            adopts = await adoption.is_due(connection)
        except DatabaseError as error:
            yield fault("schema", str(error))
            return
    if adopts:
        yield warning(
            "schema",
            "of the system before ConnectHub: the first start adopts it (docs/upgrade.md)",
        )
        return
    revision = await health.schema_revision(db)
    lacking = await lacking_rights(db, is_empty=revision is None)
    yield _schema(revision) if lacking is None else fault("schema", lacking)
    if revision != schema_head() or lacking is not None:
        return
    vault, finding = await _key(settings, db)
    yield finding
    jobs = await health.read_jobs(db)
    for one in await plugin_findings(settings, jobs):
        yield one
    for one in schedule_findings(jobs, server["now"]):
        yield one
    if vault is not None:
        for one in secret_findings(jobs, vault):
            yield one
    for one in _hubs(await hubs.alive_hubs(db)):
        yield one
    for hub in await hubs.changed_code(db):
        modules = ", ".join(hub["changed_modules"])
        yield warning(
            "code", f"{hub['name']} runs older code than the files of {modules} hold: restart it to load them"
        )
    yield _pause(await health.read_pause(db))


def _database(server: Row) -> Finding:
    what = f"PostgreSQL {server['version']}, database {server['name']}, {server['size']}"
    if server["is_standby"]:
        return fault("database", f"{what} is a standby and read-only: set [database] url to the primary")
    if server["encoding"] != "UTF8":
        return warning(
            "database",
            f"{what}, cannot hold every text, its encoding is {server['encoding']}: back up, CREATE DATABASE "
            "name ENCODING 'UTF8' TEMPLATE template0, and restore there",
        )
    if server["is_careless"]:
        return warning(
            "database", f"{what} may be lost when the power fails: switch fsync and full_page_writes on"
        )
    return ok("database", what)


def _clock(there: datetime, before: datetime, after: datetime) -> Finding:
    """The database's clock was read between `before` and `after` by the clock here."""
    off = max(before - there, there - after, timedelta(0))
    if off <= _CLOCK:
        return ok("clock", "the clock here and the database's agree")
    text = f"the clock here is {off.total_seconds():.0f} s off the database's: set both by NTP (timedatectl)"
    return fault("clock", text) if off > _CLOCK_TOO_FAR else warning("clock", text)


def _schema(revision: str | None) -> Finding:
    head = schema_head()
    if revision == head:
        return ok("schema", f"{head}, up to date")
    if revision is None:
        return warning("schema", "there is none yet: the first start makes it (connecthub serve)")
    if revision in schema_revisions():
        return warning("schema", f"{revision}, older than {head}: connecthub migrate, or start the hub")
    return fault(
        "schema",
        f"{revision} is newer than {head}, the last one that this version knows: start the version that made "
        "it, or restore a backup made by this one",
    )


async def _key(settings: Settings, db: Database) -> tuple[Vault | None, Finding]:
    path = settings.fernet_key_path
    tokens = await keys.stored_tokens(db)
    if not tokens and keyfile.is_missing(path):
        return None, warning("key", f"{path} is not there yet: the first start makes it (connecthub serve)")
    try:
        vault = Vault.open(path, may_create=False)
        vault.require_fit(tokens)
    except KeyFileError as error:
        return None, fault("key", str(error))
    return vault, ok("key", f"{path} fits the database" if tokens else f"{path} can be used")


def _hubs(alive: Sequence[Row]) -> Iterator[Finding]:
    if not alive:
        yield warning("hubs", "none is alive: start one (systemctl start connecthub, or connecthub serve)")
        return
    late = min(hub["ticked_s"] for hub in alive)
    names = ", ".join(f"{hub['name']} ({hub['version']})" for hub in alive)
    if late > _TICK_S:
        yield fault("hubs", f"{names}: the last tick was {late:.0f} s ago, so no Job fires: restart the hub")
    elif len({hub["version"] for hub in alive}) > 1:
        yield warning("hubs", f"{names} are of different versions: upgrade the older ones")
    else:
        yield ok("hubs", f"alive: {names}; last tick {late:.0f} s ago")


def _pause(pause: Row) -> Finding:
    if pause["paused_at"] is None:
        return ok("pause", "none")
    since = pause["paused_at"].isoformat(timespec="seconds")
    return warning("pause", f"no Job starts since {since}, by {pause['paused_by']}: connecthub resume")
