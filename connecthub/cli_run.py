"""The commands for daily work with runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC
from typing import Any

import click

from connecthub.cli_database import command_line, do
from connecthub.cli_out import as_json, cell, pairs, print_json, record, table
from connecthub.config import Settings
from connecthub.errors import NotFoundError, StartupError
from connecthub.logs import escaped
from connecthub.run_log import TRUNCATED, parse
from connecthub.storage import hubs, requests, run_lists, run_page
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.jobs import Row

_POLL_S = 0.5
_STATUSES = ("QUEUED", "RUNNING", "SUCCESS", "FAILURE", "CANCELLED", "LOST", "SKIPPED")
_TRIGGERS = ("schedule", "manual", "retry", "api")
_INT8 = 2**63 - 1
_number = click.argument("run_id", metavar="RUN", type=click.IntRange(1, _INT8))


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that start a run."""
    command = click.option("--follow", is_flag=True, help="Print its log as it grows, until it ends.")(
        command
    )
    return click.option("--wait", is_flag=True, help="Return when it has ended; exit status by its end.")(
        command
    )


@click.group()
def run() -> None:
    """List, read, retry and cancel runs."""


@run.command("list")
@click.option("--job", default="", metavar="ID", help="Only those of this Job.")
@click.option("--status", default="", type=click.Choice(["", *_STATUSES]), help="Only those of this status.")
@click.option("--reason", default="", help="Only those with this reason, timeout say.")
@click.option("--trigger", default="", type=click.Choice(["", *_TRIGGERS]), help="Only those started so.")
@click.option("--since", type=click.DateTime(), help="Only those queued at or after this local time.")
@click.option("--until", type=click.DateTime(), help="Only those queued before this local time.")
@click.option("--q", default="", help="Only those with this text in their message.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option(
    "--before", type=click.IntRange(1, _INT8), metavar="RUN", help="Only those older than this run."
)
@as_json
@click.pass_obj
def list_all(settings: Settings, /, limit: int, before: int | None, as_json: bool, **wanted: Any) -> None:
    """List runs, the newest first."""
    for end in ("since", "until"):
        wanted[end] = None if wanted[end] is None else wanted[end].astimezone(UTC)
    chosen = run_lists.RunFilter(**wanted)
    page = do(settings, lambda db: run_lists.list_runs(db, chosen, limit, before=before))
    if as_json:
        return print_json([record(row, "now") for row in page.rows])
    table(
        ("RUN", "JOB", "STATUS", "REASON", "TRIGGER", "STARTED", "SECONDS", "MESSAGE"),
        [
            (row["id"], row["job_id"], row["status"], row["reason"], row["trigger"], row["started_at"],
             _seconds(row), row["excerpt"])
            for row in page.rows
        ],
    )  # fmt: skip
    if page.searched_to is not None:
        click.echo(
            f"only runs down to {page.searched_to} were searched: --before {page.searched_to}", err=True
        )
    elif page.has_older:
        click.echo(f"there are older ones: --before {page.rows[-1]['id']}", err=True)


def _seconds(row: Row) -> str | None:
    if row["started_at"] is None:
        return None
    return f"{((row['finished_at'] or row['now']) - row['started_at']).total_seconds():.1f}"


@run.command()
@_number
@as_json
@click.pass_obj
def show(settings: Settings, run_id: int, as_json: bool) -> None:
    """Show all that is recorded of a run but its log."""
    row = do(settings, lambda db: _read(db, run_id))
    if as_json:
        return print_json(record(row, "run_log", "now"))
    without = ("run_log", "traceback", "now")
    pairs((name, value) for name, value in row.items() if name not in without and value is not None)
    if row["traceback"]:
        click.echo()
        click.echo("\n".join(map(escaped, row["traceback"].splitlines())))


async def _read(db: Database, run_id: int) -> Row:
    row = await run_page.read_whole_run(db, run_id)
    if row is None:
        raise NotFoundError(f"there is no run {run_id}")
    return row


@run.command()
@_number
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@as_json
@click.pass_obj
def log(settings: Settings, run_id: int, follow: bool, as_json: bool) -> None:
    """Print the log of a run: the lines as they are, or as JSON objects, one a line."""

    async def read(db: Database) -> None:
        row = await _read(db, run_id)
        if follow:
            await _followed(db, run_id, _LogPrinter(as_json))
        else:
            _LogPrinter(as_json).show(row)

    _interruptible(lambda: do(settings, read), "")


@run.command()
@_number
@click.option("--today", is_flag=True, help="With today's definition of the Job, not the one it ran with.")
@follow_options
@as_json
@click.pass_obj
def retry(settings: Settings, run_id: int, today: bool, wait: bool, follow: bool, as_json: bool) -> None:
    """Run again what a run did; refused while a run for the same fire time is going.

    With --wait the exit status is 0 for SUCCESS and 1 for any other end.
    """
    new_id = do(settings, lambda db: requests.retry_run(db, run_id, actor=command_line(), today=today))
    sys.exit(report(settings, new_id, wait=wait, follow=follow, as_json=as_json))


@run.command()
@_number
@as_json
@click.pass_obj
def cancel(settings: Settings, run_id: int, as_json: bool) -> None:
    """End a run: at once where it is queued, else as soon as its code lets itself be ended."""
    status = do(settings, lambda db: requests.cancel_run(db, run_id, actor=command_line()))
    if as_json:
        print_json({"run_id": run_id, "status": status})
    else:
        click.echo(f"run {run_id} is cancelled" if status == "CANCELLED" else f"run {run_id} is asked to end")


def report(settings: Settings, run_id: int, *, wait: bool, follow: bool, as_json: bool) -> int:
    """Say that a run is queued, or how it has ended where that is waited for; the exit status."""
    if not (wait or follow):
        print_json({"run_id": run_id}) if as_json else click.echo(f"run {run_id} is queued")
        return 0

    async def end(db: Database) -> Row:
        if not await hubs.alive_hubs(db):
            click.echo(f"no hub is alive: run {run_id} waits until one is started", err=True)
        await _followed(db, run_id, _LogPrinter(as_json) if follow else None)
        return await _read(db, run_id)

    row: Row = _interruptible(
        lambda: do(settings, end), f"run {run_id} goes on: connecthub run log -f {run_id}"
    )
    if as_json:
        print_json(record(row, "run_log", "now"))
    else:
        click.echo(f"run {run_id}: {' '.join(filter(None, (row['status'], row['reason'])))}", err=follow)
        if row["message"]:
            click.echo(cell(row["message"], longest=None), err=follow)
    return 0 if row["status"] == "SUCCESS" else 1


def _interruptible(work: Callable[[], Any], said: str) -> Any:
    """What `work` returns; Ctrl-C, or a database that is lost, ends the waiting and nothing else."""
    try:
        return work()
    except (KeyboardInterrupt, StartupError) as error:
        if said:  # or a script could only start it once more
            click.echo(said, err=True)
        if isinstance(error, StartupError):
            raise
        sys.exit(130)


class _LogPrinter:
    """Prints the lines of a run's log that it has not printed yet."""

    def __init__(self, as_json: bool) -> None:
        self._as_json, self._shown, self._behind = as_json, 0, ""
        self._last: tuple[str, str] | None = None  # its time and text

    def show(self, row: Row) -> None:
        """`row` has run_log and started_at."""
        text = row["run_log"] or ""
        head, cut, behind = text.partition(f"\n{TRUNCATED}\n")
        has_moved = bool(cut) and self._shown > head.count("\n") + 1 and behind != self._behind
        self._behind = behind
        lines = parse(text, row["started_at"], head.count("\n") + 2 if has_moved else self._shown + 1)
        known = [at for at, line in enumerate(lines, 1) if has_moved and (line.at, line.text) == self._last]
        for line in lines[known[-1] if known else 0 :]:
            self._shown, self._last = line.n, (line.at, line.text)
            if self._as_json:
                print_json(asdict(line))
            else:
                click.echo(escaped(" ".join(filter(None, (line.at, line.level, line.source, line.text)))))


async def _followed(db: Database, run_id: int, printer: _LogPrinter | None) -> None:
    """Return when the run has ended and its place is free, over lost connections and restarts of hubs too."""
    seen, lost = "", False
    while True:
        try:
            row = await run_page.read_growth(db, run_id, seen)
        except UNAVAILABLE:
            if not lost:
                click.echo("the database does not answer; waiting for it", err=True)
            lost = True
            await asyncio.sleep(_POLL_S)
            continue
        if row is None:
            raise NotFoundError(f"run {run_id} was deleted meanwhile")
        lost = False
        seen = row["version"]
        if row["run_log"] is not None and printer is not None:
            printer.show(row)
        if row["ended"] and not row["leased"]:
            return
        await asyncio.sleep(_POLL_S)
