"""The commands for authors of Jobs: a hub that restarts on change, a new Job, a run without a database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from datetime import datetime
from typing import Any, TextIO

import click

from connecthub import dev, new_job
from connecthub.config import Settings
from connecthub.engine import capture
from connecthub.engine.calls import Isolated
from connecthub.engine.once import Ended, OnceRun, run_once
from connecthub.errors import HandlerError, RefusedError
from connecthub.logs import escaped
from connecthub.plugins import BaseJob
from connecthub.plugins.inspect import inspect_handler
from connecthub.plugins.loader import Loader

_STATUS = {"SUCCESS": 0, "FAILURE": 1, "CANCELLED": 130}


@click.command("dev")
@click.pass_context
def dev_command(context: click.Context) -> None:
    """Run the hub, and restart it when a file of connecthub/ or of the plugin packages changes."""
    settings: Settings = context.obj
    config = context.parent.params["config_file"] if context.parent else None
    words = ["--config", str(config)] if config else []
    context.exit(dev.run(settings, [sys.executable, "-m", "connecthub", *words, "serve", "--end-with-stdin"]))


@click.command("new-job")
@click.argument("name")
@click.pass_obj
def new_job_command(settings: Settings, name: str) -> None:
    """Write a Job NAME into the first plugin package, and a test of it into tests/."""
    made = new_job.write(name, settings.plugin_path, settings.plugins.packages[0])
    for file in made.files:
        click.echo(f"wrote {file}")
    click.echo(f"run it:  connecthub run-once {made.handler_path} --params {made.params}")
    click.echo(f"test it: python -m pytest {made.test}")


@click.command("run-once")
@click.argument("handler_path")
@click.option("--params", type=click.File(), help="A file with the parameters as a JSON object; - for stdin.")
@click.option("--secrets", type=click.File(), help="A file with the secrets as a JSON object; - for stdin.")
@click.pass_context
def run_once_command(
    context: click.Context, handler_path: str, params: TextIO | None, secrets: TextIO | None
) -> None:
    """Run a class once, without a database, and print its result as JSON.

    Its log goes to the standard error, masked. Exit status: 0 success, 1 failure, 130 cancelled by Ctrl-C
    (pressed twice it ends at once), 2 where it cannot be run.
    """
    settings: Settings = context.obj
    given, hidden = _read(params, "--params"), _read(secrets, "--secrets")
    real, told = sys.stdout, sys.stderr
    with contextlib.redirect_stdout(sys.stderr):  # what a module prints when it is imported is no result
        plugin = _load(settings, handler_path, given, hidden)
        with capture.capturing(lambda run, *line: print(_line(*line), file=told, flush=True)):
            ended = asyncio.run(_run(plugin, given, hidden, handler_path, told))
    _tell(ended, real, told)
    status = _STATUS[ended.outcome.status]
    if not ended.returned:  # a thread that ignores its cancellation would hold the interpreter
        real.flush()
        os._exit(status)
    context.exit(status)


def _read(file: TextIO | None, option: str) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        value = json.load(file)
    except (ValueError, RecursionError) as error:
        # Of what is in the file only the place: it may be a secret.
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise RefusedError(f"{option} {file.name} is not JSON{place}; write an object such as {{}}") from None
    if not isinstance(value, dict):
        raise RefusedError(f'{option} {file.name} is no JSON object; write {{"name": "value"}}')
    return value


def _load(
    settings: Settings, handler_path: str, params: dict[str, Any], secrets: dict[str, Any]
) -> type[BaseJob] | Isolated:
    packages, path = settings.plugins.packages, settings.plugin_path
    report = asyncio.run(
        inspect_handler(handler_path, packages=packages, path=path, public_cfg=params, secret_cfg=secrets)
    )
    wrong = [f"{one.section} {one.field}".rstrip() + f": {one.message}" for one in report.field_errors]
    if report.error or wrong:
        raise RefusedError(report.error or f"{handler_path} refuses {'; '.join(wrong)}")
    loader = Loader(packages, path)
    isolated = Isolated(handler_path, packages, loader.path)
    try:
        if loader.is_isolated(handler_path):
            return isolated
        plugin = loader.load(handler_path)
    except HandlerError as error:
        raise RefusedError(str(error)) from None
    return isolated if plugin.isolation == "process" else plugin


async def _run(
    plugin: type[BaseJob] | Isolated,
    params: dict[str, Any],
    secrets: dict[str, Any],
    handler_path: str,
    told: TextIO,
) -> Ended:
    loop = asyncio.get_running_loop()

    def begin(run: OnceRun) -> None:
        def on_signal() -> None:
            if run.stop_reason is not None:
                os._exit(130)
            print("cancelling; Ctrl-C again ends at once", file=told, flush=True)
            run.stop("cancelled")

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)

    return await run_once(plugin, params, secrets, job_id=handler_path.rpartition(":")[2], begin=begin)


def _line(level: str, source: str, text: str, created: float) -> str:
    return escaped(f"{datetime.fromtimestamp(created):%H:%M:%S} {level} {source}: {text}")


def _tell(ended: Ended, out: TextIO, err: TextIO) -> None:
    stored = ended.outcome
    if stored.result is not None:
        print(json.dumps(json.loads(stored.result), ensure_ascii=False, indent=2), file=out)
    if stored.traceback:
        print("\n".join(map(escaped, stored.traceback.rstrip("\n").split("\n"))), file=err)
    for line in (stored.message or "").split("\n") if stored.status != "SUCCESS" else []:
        print(escaped(line), file=err)
    reason = f" ({stored.reason})" if stored.reason else ""
    print(f"{stored.status}{reason}", file=err)
