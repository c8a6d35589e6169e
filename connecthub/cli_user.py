"""The commands that manage accounts, also for who has locked themselves out of the admin."""

from __future__ import annotations

import sys

import click

from connecthub.cli_database import command_line, do
from connecthub.config import Settings
from connecthub.errors import RefusedError
from connecthub.security.passwords import make_password
from connecthub.storage import users

_role = click.Choice(users.ROLES)
_from_stdin = click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from the standard input instead of making one up.",
)


def _password(username: str, from_stdin: bool) -> str:
    """The password to give; raises RefusedError for one that is too weak."""
    if not from_stdin:
        return make_password()
    password = sys.stdin.readline().rstrip("\n")
    problem = users.password_problem(password, username)
    if problem is not None:
        raise RefusedError(
            f"the password must have {users.SHORTEST_PASSWORD} to {users.LONGEST_PASSWORD} characters"
            if problem == "length"
            else "the password must not contain the name, nor be made of fewer than 4 different characters"
        )
    return password


def _told(password: str, from_stdin: bool) -> str:
    return "" if from_stdin else f"; password (to be changed at the first log-in): {password}"


@click.group()
def user() -> None:
    """Manage accounts."""


@user.command()
@click.argument("name")
@click.option("--role", type=_role, default="viewer", show_default=True)
@_from_stdin
@click.pass_obj
def add(settings: Settings, name: str, role: str, password_stdin: bool) -> None:
    """Create the account NAME."""
    if not users.is_username(name):
        raise RefusedError(
            f"{name!r} cannot be a name: letters, digits and . _ @ -, at most {users.LONGEST_NAME}"
        )
    password = _password(name, password_stdin)
    do(
        settings,
        lambda db: users.add_user(db, name, role, password, command_line(), must_change=not password_stdin),
    )
    click.echo(f"{name} is a user with the role {role}{_told(password, password_stdin)}")


@user.command()
@click.argument("name")
@_from_stdin
@click.pass_obj
def passwd(settings: Settings, name: str, password_stdin: bool) -> None:
    """Give NAME a new password; all sessions of the account end."""
    password = _password(name, password_stdin)
    do(
        settings,
        lambda db: users.set_password(db, name, password, command_line(), must_change=not password_stdin),
    )
    click.echo(f"{name} has a new password{_told(password, password_stdin)}")


@user.command("role")
@click.argument("name")
@click.argument("role", type=_role)
@click.pass_obj
def set_role(settings: Settings, name: str, role: str) -> None:
    """Give NAME the role ROLE."""
    do(settings, lambda db: users.set_role(db, name, role, command_line()))
    click.echo(f"{name} has the role {role}")


@user.command()
@click.argument("name")
@click.pass_obj
def disable(settings: Settings, name: str) -> None:
    """Disable NAME: no log-in, and all sessions end."""
    do(settings, lambda db: users.set_disabled(db, name, True, command_line()))
    click.echo(f"{name} is disabled")


@user.command()
@click.argument("name")
@click.pass_obj
def enable(settings: Settings, name: str) -> None:
    """Let NAME log in again."""
    do(settings, lambda db: users.set_disabled(db, name, False, command_line()))
    click.echo(f"{name} is enabled")


@user.command("list")
@click.pass_obj
def list_all(settings: Settings) -> None:
    """List all accounts: name, role, state, last log-in."""
    for row in do(settings, users.list_users):
        state = "disabled" if row["disabled"] else "enabled"
        last = row["last_login_at"]
        seen = f"{last:%Y-%m-%dT%H:%M:%S%z}" if last else "never"
        click.echo(f"{row['username']}\t{row['role']}\t{state}\t{seen}")
