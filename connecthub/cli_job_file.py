"""`connecthub job export|import`: Jobs as TOML files, to be kept in git and moved between installations."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from connecthub import daemon
from connecthub.cli_database import command_line, do
from connecthub.cli_out import as_json, print_json
from connecthub.config import Settings
from connecthub.definitions.differences import Change, for_audit
from connecthub.errors import NotFoundError, RefusedError, SecretError
from connecthub.logs import escaped
from connecthub.operations.job_file import Entry, Secrets, read_jobs, write_jobs
from connecthub.operations.job_import import Plan, Step, plan_import, store_import
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.storage.jobs import read_jobs as stored_jobs


@click.command("export")
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Instead of stdout.")
@click.option(
    "--secrets",
    type=click.Choice(["references", "encrypted"]),
    default="references",
    show_default=True,
    help="Names of variables to set for the import, or what is stored, good under the same key only.",
)
@click.pass_obj
def export_jobs(settings: Settings, job_ids: tuple[str, ...], output: Path | None, secrets: Secrets) -> None:
    """Write Jobs as TOML, all of them unless some are named."""
    rows = do(settings, lambda db: stored_jobs(db, job_ids))
    unknown = sorted(set(job_ids) - {row["id"] for row in rows})
    if unknown:
        raise NotFoundError(f"there is no Job {', '.join(unknown)}; nothing was written")
    needs_key = secrets == "references" and any(row["secret_cfg"] for row in rows)
    vault = Vault.open(settings.fernet_key_path, may_create=False) if needs_key else None
    try:
        text = write_jobs(rows, secrets, vault)
    except SecretError as error:
        raise RefusedError(f"{error}; or export with --secrets encrypted") from None
    if output is None:
        return click.echo(text, nl=False)
    _write(output, text)
    click.echo(f"{len(rows)} Jobs are in {output}")


def _write(file: Path, text: str) -> None:
    """Put the text there as a whole: a full disk leaves the file that was there before."""
    target = file.resolve()  # a link stays a link
    part = target.with_name(f".{target.name}.part")
    try:
        if file.exists() and not file.is_file():  # a pipe, /dev/stdout
            file.write_text(text, encoding="utf-8")
            return
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise RefusedError(
            f"{file} cannot be written: {error.strerror}; choose a folder with room that is yours to write"
        ) from None


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@as_json
@click.pass_obj
def import_jobs(settings: Settings, files: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Make Jobs what TOML files say (- for standard input): all of them or none; others stay as they are."""

    async def work(db: Database) -> Plan:
        vault = await daemon.open_vault(settings, db)
        plan = await plan_import(settings, db, vault, _entries(files, vault))
        if not (dry_run or plan.problems):
            await store_import(db, plan, command_line())
        return plan

    plan = do(settings, work)
    if plan.problems:
        for problem in plan.problems:
            click.echo(f"connecthub: {escaped(problem)}", err=True)
        raise RefusedError("nothing was imported: correct what stands above")
    if as_json:
        return print_json(
            [
                {"id": step.entry.id, "new": step.is_new, "changes": for_audit(step.changes)}
                for step in plan.steps
            ]
        )
    _show(plan, dry_run)


def _entries(files: tuple[str, ...], vault: Vault) -> list[Entry]:
    entries = []
    for file in files:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        except OSError as error:
            raise RefusedError(f"{file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RefusedError(f"{file} is no text in UTF-8: save it as UTF-8") from None
        folder = Path() if file == "-" else Path(file).parent
        entries += read_jobs(file, text, folder, vault)
    return entries


def _show(plan: Plan, dry_run: bool) -> None:
    for step in plan.steps:
        click.echo(f"{_mark(step)} {escaped(step.entry.id)}")
        for change in step.changes:
            click.echo(f"    {escaped(_line(change))}")
    changed = sum(bool(step.changes) for step in plan.steps)
    would = "would be imported; nothing was changed" if dry_run else "are imported"
    click.echo(f"{changed} Jobs {would}, {len(plan.steps) - changed} are as they were")


def _mark(step: Step) -> str:
    return "new    " if step.is_new else "change " if step.changes else "same   "


def _line(change: Change) -> str:
    if change.field == "secret_cfg":
        return f"{change.name}: {change.kind}"
    before, after = (
        "-" if value is None else " ".join(value.split()) for value in (change.before, change.after)
    )
    return f"{change.name}: {before} -> {after}"
