"""`connecthub backup` and `connecthub restore`."""

from __future__ import annotations

from pathlib import Path

import click

from connecthub import daemon
from connecthub.cli_database import command_line, complete
from connecthub.config import Settings
from connecthub.errors import RefusedError
from connecthub.operations import backup as operations
from connecthub.operations.archive import Manifest
from connecthub.storage.backup import Target

_NAMED = 12  # tables that a question names
_file = click.argument("file", type=click.Path(path_type=Path))


@click.command()
@_file
@click.option(
    "--with-key", is_flag=True, help="Put the key file in too: whoever reads FILE reads the secrets."
)
@click.pass_obj
def backup(settings: Settings, file: Path, with_key: bool) -> None:
    """Back up the whole database to FILE, which must not exist yet. Hubs may run meanwhile."""
    made = complete(_backup(settings, file.absolute(), with_key))
    click.echo(f"backed up to {file}: {_summary(made)}")
    if with_key:
        click.echo("it holds the key file: keep it where only those may read it who may read the secrets")
    else:
        click.echo(f"it does not hold the key file: back up {settings.fernet_key_path} too, in another place")


async def _backup(settings: Settings, file: Path, with_key: bool) -> Manifest:
    async with daemon.database_url(settings) as dsn:
        return await operations.make_backup(file, dsn, settings.fernet_key_path, with_key=with_key)


@click.command()
@_file
@click.option("--replace", is_flag=True, help="Replace what is in the database; asks first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def restore(settings: Settings, file: Path, replace: bool, yes: bool) -> None:
    """Restore the backup FILE into an empty database: all of it, or nothing is changed.

    No hub may run meanwhile. Afterwards all hubs are paused until `connecthub resume`.
    """

    def confirm(made: Manifest, target: Target) -> None:
        if not replace:
            raise RefusedError(
                f"database {target.database} is not empty: restore into an empty one, or add --replace, "
                "which drops what is there"
            )
        tables = ", ".join(target.tables[:_NAMED]) + (", ..." if len(target.tables) > _NAMED else "")
        question = f"Drop these tables of database {target.database} with all that is in them: {tables}?"
        if not yes:
            click.confirm(question, abort=True)

    made = complete(
        operations.restore_backup(
            file,
            lambda: daemon.database_url(settings),
            settings.fernet_key_path,
            command_line(),
            confirm,
        )
    )
    click.echo(f"restored from {file}, made {made.made}: {_summary(made)}")
    click.echo(
        f"{made.going} runs that were queued or running then are LOST, and everybody has to log in again"
    )
    click.echo("all hubs are paused: start one, look at the Jobs, then connecthub resume")


def _summary(made: Manifest) -> str:
    counts = made.counts
    return f"{counts['jobs']} Jobs, {counts['job_logs']} runs, {counts['users']} users (schema {made.schema})"
