"""Rotating and retiring keys while hubs run.

A rotation puts a new key first into the key file, waits until every hub has it, and then writes the secrets
of Jobs and revisions anew, batch by batch. Old and new keys read all of them throughout, so it may be cut off
at any moment: the next one finds secrets of older keys and goes on instead of making another key.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from connecthub import failpoints
from connecthub.clock import boottime
from connecthub.errors import KeyFileError, RefusedError
from connecthub.security import keyfile
from connecthub.security.vault import Vault
from connecthub.storage import hubs, keys
from connecthub.storage.rights import require_rights

if TYPE_CHECKING:
    from connecthub.security.keyfile import Key
    from connecthub.storage.audit import Actor
    from connecthub.storage.database import Database

_HUBS_S = 150  # a hub that was killed counts as alive for two minutes
_POLL_S = 0.2
_NAMED = 5  # Jobs that a message names


@dataclass
class Rotation:
    """What a rotation did. `unreadable`: Jobs that hold a secret which no key of the file reads."""

    key_id: str
    is_new: bool
    secrets: int = 0
    unreadable: set[str] = field(default_factory=set)


async def rotate(path: Path, db: Database, actor: Actor, say: Callable[[str], None]) -> Rotation:
    """Make a new key and write all secrets anew with it, or go on where a rotation was cut off.

    `say` gets a line while it waits for hubs. Raises KeyFileError, and RefusedError where another rotation is
    at work or a hub does not get the key.
    """
    await require_rights(db)
    with _alone(path):
        vault = await _vault(path, db)
        is_new = not await _is_unfinished(db, vault)
        if is_new:
            key = keyfile.make_key()
            keyfile.replace(path, [key, *keyfile.read_keys(path)])
            failpoints.passing("keys.after_file")
            vault.look()
        done = Rotation(vault.key_ids[0], is_new)
        # One that was cut off may have left its key in the file and nothing in the audit.
        if not await keys.is_recorded(db, "key.rotate", done.key_id):
            await keys.record(db, "key.rotate", done.key_id, actor)
        await _await_hubs(db, path, done.key_id, say)
        async for batch in keys.all_tokens(db):
            changes = []
            for row in batch:
                if vault.is_of_newest(row["secret_cfg"]):
                    continue
                renewed = vault.renew(row["secret_cfg"])
                if renewed is None:
                    done.unreadable.add(row["job_id"])
                else:
                    changes.append((row["job_id"], row["secret_cfg"], renewed))
            if changes:
                await keys.renew_tokens(db, changes)
                failpoints.passing("keys.after_batch")
            done.secrets += len(changes)
        failpoints.passing("keys.before_canary")
        await keys.replace_canary(db, vault.canary())
        return done


async def retire(path: Path, db: Database, actor: Actor) -> list[Key]:
    """Drop all keys but the newest; which went. Raises RefusedError that says what still needs them."""
    await require_rights(db)
    with _alone(path):
        vault = await _vault(path, db)
        newest, *old = keyfile.read_keys(path)
        if not old:
            return []
        if lacking := await hubs.hubs_without_key(db, newest.id):
            raise RefusedError(f"{_without(lacking, path, newest.id)}, then retire again")
        await _refuse_if_needed(db, vault, old)
        # Before the file: cut off behind it, nothing would tell a later call of the keys that are gone.
        for key in old:
            await keys.record(db, "key.retire", key.id, actor)
        keyfile.replace(path, [newest])
        failpoints.passing("keys.after_file")
        try:
            await _refuse_if_needed(db, vault, old)  # a Job may have been saved just before
        except BaseException:
            keyfile.replace(path, [newest, *old])
            raise
        return old


async def _vault(path: Path, db: Database) -> Vault:
    tokens = await keys.stored_tokens(db)
    if not tokens and keyfile.is_missing(path):
        raise RefusedError(f"there is no key yet: the first start of a hub makes it in {path}")
    vault = Vault.open(path, may_create=False)
    vault.require_fit(tokens)
    return vault


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of two rotations at once, one would lose the key of the other. The kernel locks the folder."""
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeyFileError(
            f"key file {path} cannot be used: {error.strerror}; correct [security] fernet_key_path"
        ) from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(f"another command changes key file {path}: wait until it has ended") from None
        yield
    finally:
        os.close(folder)


async def _is_unfinished(db: Database, vault: Vault) -> bool:
    """Whether something readable is of an older key, the canary included."""

    def is_old(token: str) -> bool:
        return not vault.is_of_newest(token) and vault.fits(token)

    if any(is_old(token) for token in await keys.stored_tokens(db)):
        return True
    async for batch in keys.all_tokens(db):
        if any(is_old(row["secret_cfg"]) for row in batch):
            return True
    return False


async def _await_hubs(db: Database, path: Path, key_id: str, say: Callable[[str], None]) -> None:
    deadline = boottime() + _HUBS_S
    told = False
    while lacking := await hubs.hubs_without_key(db, key_id):
        if boottime() > deadline:
            raise RefusedError(
                f"nothing is re-encrypted yet: {_without(lacking, path, key_id)}, then rotate again to go on"
            )
        if not told and boottime() > deadline - _HUBS_S + 3:
            told = True
            say(f"waiting for {', '.join(lacking)} to notice key {key_id} in {path}")
        await asyncio.sleep(_POLL_S)


def _without(lacking: list[str], path: Path, key_id: str) -> str:
    return (
        f"{', '.join(lacking)} without key {key_id}: stop it, or copy {path} to where it reads its key file"
    )


async def _refuse_if_needed(db: Database, vault: Vault, old: list[Key]) -> None:
    jobs: dict[str, list[str]] = {}
    revisions: Counter[str] = Counter()
    async for batch in keys.all_tokens(db):
        for row in batch:
            if vault.is_of_newest(row["secret_cfg"]):
                continue
            for key in old:
                if Vault([key.fernet]).fits(row["secret_cfg"]):
                    revisions[key.id] += row["revisions"]
                    jobs.setdefault(key.id, []).extend([row["job_id"]] if row["of_job"] else [])
    canary = [token for token in await keys.stored_tokens(db) if not vault.is_of_newest(token)]
    needed = [
        f"key {key.id} by {_named(jobs.get(key.id, []))}{revisions[key.id]} revisions"
        for key in old
        if key.id in revisions
    ]
    if needed or canary:
        what = "; ".join(needed) or "an old key by the mark that tells whether the key fits"
        raise RefusedError(f"still needed: {what}: connecthub key rotate re-encrypts them, then retire again")


def _named(job_ids: list[str]) -> str:
    if not job_ids:
        return ""
    shown = ", ".join(job_ids[:_NAMED]) + (", ..." if len(job_ids) > _NAMED else "")
    return f"{len(job_ids)} Jobs ({shown}) and "
