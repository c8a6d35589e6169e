"""The command line: thin commands over what the layers below do."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import click

from connecthub import __version__, daemon, failpoints, systemd
from connecthub.cli_backup import backup, restore
from connecthub.cli_check import check
from connecthub.cli_database import command_line, complete, do
from connecthub.cli_dev import dev_command, new_job_command, run_once_command
from connecthub.cli_job import job
from connecthub.cli_key import key
from connecthub.cli_out import as_json, print_json
from connecthub.cli_run import run
from connecthub.cli_user import user
from connecthub.config import Settings, load_settings
from connecthub.errors import ConfigError, NotFoundError, RefusedError, StartupError
from connecthub.storage.pending import migrate as migrate_database
from connecthub.storage.pending import pending_sql
from connecthub.storage.requests import set_paused


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="The configuration file (TOML)."
)
@click.pass_context
def _group(context: click.Context, config_file: Path | None) -> None:
    """ConnectHub: scheduled Python Jobs, every run recorded and explained."""
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    try:
        context.obj = load_settings(config_file)
    except ConfigError as error:
        if context.invoked_subcommand != check.name:
            raise
        context.obj = error  # the first line of its report
    if context.invoked_subcommand is None:
        context.invoke(serve)


@_group.command()
@click.option("--end-with-stdin", is_flag=True, hidden=True, help="Drain when the standard input ends.")
@click.pass_obj
def serve(settings: Settings, end_with_stdin: bool = False) -> None:
    """Run the hub (the default)."""
    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    daemon.run(settings)


def _end_with_stdin() -> None:
    while os.read(0, 1 << 12):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@_group.command()
@click.option("--sql", is_flag=True, help="Print the SQL that would run, and change nothing.")
@click.pass_obj
def migrate(settings: Settings, sql: bool) -> None:
    """Bring the database's schema up to date, as each start does."""
    script = complete(_migrate(settings, sql))
    click.echo(script or "the schema is up to date", nl=not script)


async def _migrate(settings: Settings, sql: bool) -> str:
    async with daemon.database_url(settings) as dsn:
        if sql:
            return await pending_sql(dsn)
        await migrate_database(dsn)
        return ""


@_group.command()
@as_json
@click.pass_obj
def pause(settings: Settings, as_json: bool) -> None:
    """Pause all hubs of the database: no Job starts, what runs goes on."""
    _set_paused(settings, True, "paused: no Job starts until `connecthub resume`", as_json)


@_group.command()
@as_json
@click.pass_obj
def resume(settings: Settings, as_json: bool) -> None:
    """Resume after a pause; fire times meanwhile are handled as missed ones."""
    _set_paused(settings, False, "resumed", as_json)


def _set_paused(settings: Settings, paused: bool, said: str, as_json: bool) -> None:
    changed = do(settings, lambda db: set_paused(db, paused, actor=command_line()))
    if as_json:
        return print_json({"paused": paused, "changed": changed})
    click.echo(said if changed else f"nothing to do: it is {'paused' if paused else 'not paused'} already")


_group.add_command(backup)
_group.add_command(restore)
_group.add_command(check)
_group.add_command(job)
_group.add_command(key)
_group.add_command(run)
_group.add_command(user)
_group.add_command(dev_command)
_group.add_command(new_job_command)
_group.add_command(run_once_command)


def main() -> None:
    """Entry point. What cannot start or be done says so in one line, with exit status 2.

    Wrong settings have a status of their own under a service manager, which need not try again.
    """
    try:
        _group(prog_name="connecthub")
    except (StartupError, RefusedError, NotFoundError) as error:
        print(f"connecthub: {error}", file=sys.stderr)
        sys.exit(systemd.status_of_wrong_settings() if isinstance(error, ConfigError) else 2)
