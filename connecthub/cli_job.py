"""The commands for daily work with Jobs."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from connecthub.cli_database import command_line, do
from connecthub.cli_job_file import export_jobs, import_jobs
from connecthub.cli_out import as_json, pairs, print_json, record, table
from connecthub.cli_run import follow_options, report
from connecthub.config import Settings
from connecthub.definitions.differences import overrides
from connecthub.definitions.fields import WrongField, parse_json
from connecthub.errors import KeyFileError, NotFoundError, RefusedError, SecretError
from connecthub.security.vault import Vault
from connecthub.storage import job_changes, job_pages
from connecthub.storage.database import Database
from connecthub.storage.jobs import Row, read_job
from connecthub.storage.requests import request_run

_NEWEST = 5
_MOST = 1_000_000  # Jobs in a list without a limit
_ids = click.argument("job_ids", metavar="ID...", nargs=-1, required=True)


@click.group()
def job() -> None:
    """List, run, switch, move and delete Jobs."""


@job.command("list")
@click.option("--q", default="", help="Only those with this text in id, name, handler or tags.")
@click.option("--tag", default="", help="Only those with this tag.")
@click.option("--state", type=click.Choice(job_pages.STATES), default="all", show_default=True)
@as_json
@click.pass_obj
def list_all(settings: Settings, q: str, tag: str, state: str, as_json: bool) -> None:
    """List Jobs by name."""
    wanted = job_pages.JobFilter(q, tag, state)
    rows = do(settings, lambda db: job_pages.list_jobs(db, wanted, "name", _MOST, 0))
    if as_json:
        return print_json([record(row) for row in rows])
    table(
        ("ID", "NAME", "STATE", "CRON", "ZONE", "NEXT", "LAST END"),
        [
            (row["id"], row["name"], _state(row), row["cron_expr"], row["timezone"], row["next_run_at"],
             row["ended_at"])
            for row in rows
        ],
    )  # fmt: skip


def _state(row: Row) -> str:
    """As the list of the admin says it, the worst first."""
    if not row["enabled"]:
        return "disabled"
    if row["schedule_error"]:
        return "bad schedule"
    if row["failing"]:
        return "failing"
    return "running" if row["going"] is not None else "enabled"


@job.command()
@click.argument("job_id", metavar="ID")
@as_json
@click.pass_obj
def show(settings: Settings, job_id: str, as_json: bool) -> None:
    """Show all that a Job says, its health and its newest runs; of secrets only their names."""

    async def read(db: Database) -> tuple[Row, Row, list[Row]]:
        found = await _job(db, job_id)
        runs = await job_pages.newest_runs(db, [job_id], _NEWEST)
        return found, await job_pages.job_health(db, job_id), runs[job_id]

    found, health, runs = do(settings, read)
    keys = _secret_keys(settings, found["secret_cfg"])
    if as_json:
        return print_json(
            {
                **record(found, "secret_cfg"),
                "secret_keys": keys,
                "health": record(health),
                "runs": [record(run) for run in runs],
            }
        )
    secrets = "cannot be read with the key here" if keys is None else keys
    well = {"last_success": health["last_success"], "failures_since": health["streak"]}
    pairs(({**found, "secret_cfg": secrets} | well).items())
    click.echo()
    table(
        ("RUN", "STATUS", "REASON", "TRIGGER", "STARTED", "FINISHED", "MESSAGE"),
        [
            (run["id"], run["status"], run["reason"], run["trigger"], run["started_at"], run["finished_at"],
             run["excerpt"])
            for run in runs
        ],
    )  # fmt: skip


async def _job(db: Database, job_id: str) -> Row:
    """Raises NotFoundError."""
    found = await read_job(db, job_id)
    if found is None:
        raise NotFoundError(f"there is no Job {job_id}")
    return found


def _secret_keys(settings: Settings, token: str | None) -> list[str] | None:
    """The names of the secrets; None where the key here cannot read them."""
    if token is None:
        return []
    try:
        return sorted(Vault.open(settings.fernet_key_path, may_create=False).decrypt(token))
    except (KeyFileError, SecretError):
        return None


@job.command("run")
@click.argument("job_id", metavar="ID")
@click.option("--params", metavar="JSON", help="An object whose keys override public_cfg for this one run.")
@follow_options
@as_json
@click.pass_obj
def run_now(
    settings: Settings, job_id: str, params: str | None, wait: bool, follow: bool, as_json: bool
) -> None:
    """Start a run of a Job now, as the admin does; a disabled one runs too.

    With --wait the exit status is 0 for SUCCESS and 1 for any other end.
    """
    wanted = _object(params)

    async def start(db: Database) -> int:
        stored = await _job(db, job_id)
        changed = overrides(json.loads(stored["public_cfg"]), wanted)
        return await request_run(db, job_id, actor=command_line(), params=changed)

    sys.exit(report(settings, do(settings, start), wait=wait, follow=follow, as_json=as_json))


def _object(text: str | None) -> dict[str, Any]:
    try:
        data = {} if text is None else parse_json(text)
    except WrongField:
        data = None
    if not isinstance(data, dict):
        raise RefusedError("""--params must be a JSON object, '{"limit": 10}'""")
    return data


@job.command()
@_ids
@as_json
@click.pass_obj
def enable(settings: Settings, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Let Jobs fire."""
    _switch(settings, job_ids, True, as_json)


@job.command()
@_ids
@as_json
@click.pass_obj
def disable(settings: Settings, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Let Jobs fire no more; what is queued of their schedule is cancelled, and their runs stay."""
    _switch(settings, job_ids, False, as_json)


def _switch(settings: Settings, job_ids: tuple[str, ...], enabled: bool, as_json: bool) -> None:
    async def switch(db: Database) -> list[str]:
        await _weigh(db, job_ids)
        return (await job_changes.switch_jobs(db, job_ids, enabled, command_line())).job_ids

    changed = do(settings, switch)
    if as_json:
        return print_json({"enabled": enabled, "changed": changed})
    for job_id in dict.fromkeys(job_ids):
        already = "" if job_id in changed else " already"
        click.echo(f"{job_id} is {'enabled' if enabled else 'disabled'}{already}")


async def _weigh(db: Database, job_ids: tuple[str, ...]) -> job_pages.Weight:
    """What hangs on these Jobs. Raises NotFoundError where one of them is not there."""
    weight = await job_pages.weigh(db, job_ids)
    unknown = sorted(set(job_ids) - {row["id"] for row in weight.jobs})
    if unknown:
        raise NotFoundError(f"there is no Job {', '.join(unknown)}; nothing was changed")
    return weight


_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@job.command()
@_ids
@_yes
@as_json
@click.pass_obj
def delete(settings: Settings, job_ids: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete Jobs with all their runs; refused while a run of one of them is going."""
    weight = do(settings, lambda db: _weigh(db, job_ids))
    if weight.going:
        run_id, job_id = weight.going[0]["id"], weight.going[0]["job_id"]
        raise RefusedError(
            f"run {run_id} of Job {job_id} is still going: wait until it has ended, or cancel it "
            f"(connecthub run cancel {run_id}); nothing was deleted"
        )
    _confirm(f"{len(weight.jobs)} Jobs with {weight.records} runs go for good", weight, yes)
    count = do(settings, lambda db: job_changes.delete_jobs(db, job_ids, command_line()))
    _tell({"deleted": count}, f"{count} Jobs are deleted", as_json)


@job.command()
@_ids
@_yes
@as_json
@click.pass_obj
def clear(settings: Settings, job_ids: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete the ended runs of Jobs; the Jobs stay, and so do runs that are going."""
    weight = do(settings, lambda db: _weigh(db, job_ids))
    _confirm(f"{weight.records} runs of {len(weight.jobs)} Jobs go for good", weight, yes)
    count = do(settings, lambda db: job_changes.clear_runs(db, job_ids, command_line()))
    _tell({"cleared": count}, f"{count} runs are deleted", as_json)


def _confirm(what: str, weight: job_pages.Weight, yes: bool) -> None:
    """Have the id typed, or the number of Jobs, as the admin does."""
    if yes:
        return
    word = weight.jobs[0]["id"] if len(weight.jobs) == 1 else str(len(weight.jobs))
    try:
        typed = click.prompt(f"{what}. Type {word} to go on", default="", show_default=False, err=True)
    except click.Abort:
        click.echo(err=True)
        typed = ""
    if typed.strip() != word.strip():
        raise RefusedError(f"{word} was not typed: nothing was deleted (--yes does not ask)")


def _tell(data: dict[str, Any], text: str, as_json: bool) -> None:
    print_json(data) if as_json else click.echo(text)


job.add_command(export_jobs)
job.add_command(import_jobs)
