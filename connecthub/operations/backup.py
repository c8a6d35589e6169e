"""Backing up and restoring the database, together with what its secrets need."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

from connecthub import __version__
from connecthub.errors import DatabaseError, KeyFileError, RefusedError
from connecthub.operations import archive
from connecthub.operations.archive import Manifest
from connecthub.security import keyfile
from connecthub.security.keyfile import Key
from connecthub.security.vault import Vault
from connecthub.storage import backup
from connecthub.storage.backup import Snapshot, Target
from connecthub.storage.dump import dump, restore
from connecthub.storage.programs import Programs, find_programs
from connecthub.storage.schema import schema_head, schema_revisions

if TYPE_CHECKING:
    from connecthub.storage.audit import Actor

_NAMED = 5  # tables that a message names


async def make_backup(file: Path, dsn: str, key_path: Path, *, with_key: bool) -> Manifest:
    """Write the database as it is at one moment to `file`; hubs may run meanwhile.

    Raises RefusedError, KeyFileError and DatabaseError; nothing is left at `file` then.
    """
    with archive.new_archive(file) as target:
        keys = _keys(key_path, needed=with_key)
        async with backup.taken_snapshot(dsn) as snapshot:
            # What the snapshot holds is of keys that the file held at its moment. They are kept from here on:
            # they may be rotated and retired while the dump is written.
            if _keys(key_path, needed=with_key) != keys:
                raise RefusedError(f"key file {key_path} was changed as the backup began: begin it again")
            keys, canary = _fitting(key_path, keys, snapshot.tokens, needed=with_key)
            programs = await asyncio.to_thread(find_programs, snapshot.major)
            with _left_to_programs():
                await asyncio.to_thread(_add_dump, target, programs, dsn, snapshot)
        if with_key:
            target.writestr(archive.KEY, keyfile.as_text(keys))
        manifest = Manifest(
            connecthub=__version__,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            schema=snapshot.revision,
            namespace=snapshot.schema,
            server=snapshot.server,
            pg_dump=programs.major,
            counts=snapshot.counts,
            going=snapshot.going,
            key_ids=[key.id for key in keys],
            canary=canary,
        )
        archive.write_manifest(target, manifest)
    return manifest


def _keys(key_path: Path, *, needed: bool) -> list[Key]:
    """The keys of the file; none where it cannot be used, which raises KeyFileError where it is `needed`."""
    try:
        return keyfile.read_keys(key_path)
    except KeyFileError:
        if needed:
            raise
        return []


def _fitting(
    key_path: Path, keys: list[Key], tokens: list[str], *, needed: bool
) -> tuple[list[Key], str | None]:
    """The keys, none where they fit no token; and a token by which a key is seen to fit.

    Raises KeyFileError where they do not fit and are `needed`.
    """
    vault = Vault([key.fernet for key in keys]) if keys else None
    fitting = [token for token in tokens if vault is not None and vault.fits(token)]
    if fitting or not tokens:
        return keys, fitting[0] if fitting else None
    if needed:
        raise KeyFileError(
            f"key file {key_path} does not fit the secrets in the database; put back the key they were saved "
            "with, or set [security] fernet_key_path to it"
        )
    return [], tokens[0]


def _add_dump(target: ZipFile, programs: Programs, dsn: str, snapshot: Snapshot) -> None:
    with target.open(archive.DUMP, "w", force_zip64=True) as member:
        dump(programs, dsn, snapshot, member)


async def restore_backup(
    file: Path,
    opened_database: Callable[[], AbstractAsyncContextManager[str]],
    key_path: Path,
    actor: Actor,
    confirm: Callable[[Manifest, Target], None],
) -> Manifest:
    """Put what is in `file` in the place of the database's tables: all of it, or nothing is changed.

    `confirm` is called where there are tables already, and raises to leave them. The hub is paused
    afterwards, and what was queued or running at the backup is LOST. Raises RefusedError and StartupError.
    """
    with archive.opened_archive(file) as (source, manifest):
        _check_revision(file, manifest)
        new_keys = _keys_to_write(file, source, manifest, key_path)
        async with opened_database() as dsn:
            target = await backup.read_target(dsn, manifest.namespace)
            if target.alive:
                raise RefusedError(
                    f"{', '.join(target.alive)} may be alive: stop it, then restore again (one that was "
                    "killed counts as alive for two minutes)"
                )
            if target.is_foreign:
                raise RefusedError(
                    f"database {target.database} holds tables that are not ConnectHub's "
                    f"({', '.join(target.tables[:_NAMED])}): correct [database] url, or empty it yourself"
                )
            if target.tables:
                confirm(manifest, target)
            programs = await asyncio.to_thread(find_programs, manifest.pg_dump)
            with keyfile.kept_if_all_goes_well(key_path, new_keys), _left_to_programs():
                await asyncio.to_thread(
                    restore,
                    programs,
                    dsn,
                    lambda: source.open(archive.DUMP),
                    manifest.namespace,
                    manifest.counts,
                    replace=bool(target.tables),
                    variables={"actor": actor.username, "file": file.name},
                )
            with contextlib.suppress(DatabaseError):  # all is restored; PostgreSQL does it later by itself
                await backup.analyze(dsn)
    return manifest


@contextlib.contextmanager
def _left_to_programs() -> Iterator[None]:
    """Ctrl-C meanwhile is for PostgreSQL's programs, which it reaches too: they end, which is told then.

    Left now, this process would take archive or key away from the work that goes on in its thread.
    """
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_revision(file: Path, manifest: Manifest) -> None:
    if manifest.schema not in schema_revisions():
        raise RefusedError(
            f"backup {file} was made by ConnectHub {manifest.connecthub} with the schema {manifest.schema}, "
            f"which is newer than {schema_head()}: restore it with that version"
        )


def _keys_to_write(file: Path, source: ZipFile, manifest: Manifest, key_path: Path) -> list[Key]:
    """The keys of the archive where there is no key file. Raises KeyFileError where none would fit."""
    own = archive.KEY in source.namelist()
    needs = f"key {', '.join(manifest.key_ids) or 'of another file'}"
    if not keyfile.is_missing(key_path):
        vault = Vault.open(key_path, may_create=False)
        if manifest.canary is None or vault.fits(manifest.canary):
            return []
        way_out = (
            "move it away, and the one in the backup takes its place" if own else "put the right one there"
        )
        raise KeyFileError(f"key file {key_path} does not fit backup {file}, which needs {needs}: {way_out}")
    if own:
        keys = keyfile.parse_keys(Path(archive.KEY), source.read(archive.KEY))
        if manifest.canary is None or Vault([key.fernet for key in keys]).fits(manifest.canary):
            return keys
        raise KeyFileError(f"the key in backup {file} does not fit its secrets: put a key file at {key_path}")
    if manifest.canary is None:
        return []
    raise KeyFileError(
        f"key file {key_path} is missing, and backup {file} does not hold it: put the one with {needs} there"
    )
