"""`connecthub key`: the keys that the secrets of Jobs are encrypted with."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from connecthub import daemon
from connecthub.cli_database import command_line, complete
from connecthub.config import Settings
from connecthub.operations import rotation
from connecthub.operations.rotation import Rotation
from connecthub.security.keyfile import Key, read_keys


@click.group()
def key() -> None:
    """Manage the keys that the secrets of Jobs are encrypted with."""


@key.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def show(settings: Settings, as_json: bool) -> None:
    """Show the ids and ages of the keys in the key file, never a key. The first one encrypts."""
    found = read_keys(settings.fernet_key_path)
    if as_json:
        rows = [{"id": one.id, "made": one.made.isoformat() if one.made else None} for one in found]
        click.echo(json.dumps({"file": str(settings.fernet_key_path), "keys": rows}, ensure_ascii=False))
        return
    for number, one in enumerate(found):
        click.echo(f"{one.id}  {'only decrypts' if number else 'encrypts':<13}  {_age(one)}")


def _age(one: Key) -> str:
    if one.made is None:
        return "made at a time that the file does not tell"
    return f"made {one.made:%Y-%m-%d %H:%M} UTC, {(datetime.now(UTC) - one.made).days} days ago"


@key.command()
@click.pass_obj
def rotate(settings: Settings) -> None:
    """Put a new key first into the key file, and re-encrypt all secrets with it.

    Hubs may run on meanwhile. Cut off, it goes on at the next call, with the same key.
    """
    done = complete(_rotate(settings))
    path = settings.fernet_key_path
    how = f"is new, and the first in {path}" if done.is_new else "was there: an earlier rotation went on"
    click.echo(f"key {done.key_id} {how}; {done.secrets} secrets re-encrypted")
    if done.unreadable:
        click.echo(
            f"no key reads secrets of {', '.join(sorted(done.unreadable))}, which stay as they are: "
            "save the secrets of these Jobs again"
        )
    click.echo(f"back up {path} now; connecthub key retire drops the old keys")


async def _rotate(settings: Settings) -> Rotation:
    async with daemon.open_database(settings) as database:
        return await rotation.rotate(settings.fernet_key_path, database, command_line(), click.echo)


@key.command()
@click.pass_obj
def retire(settings: Settings) -> None:
    """Drop the old keys from the key file, once nothing needs them; else say what does."""
    gone = complete(_retire(settings))
    if not gone:
        click.echo("there is only one key")
        return
    ids = ", ".join(one.id for one in gone)
    click.echo(
        f"dropped: {ids}; backups made before need them: make a new one, or keep the old key file with those"
    )


async def _retire(settings: Settings) -> list[Key]:
    async with daemon.open_database(settings) as database:
        return await rotation.retire(settings.fernet_key_path, database, command_line())
