"""`connecthub check`: what is not in order, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

import asyncpg
import click

from connecthub import daemon
from connecthub.config import Settings
from connecthub.errors import ConfigError, StartupError
from connecthub.operations.check import database_findings
from connecthub.operations.check_machine import machine_findings
from connecthub.operations.finding import Finding, fault, ok, warning
from connecthub.storage.database import UNAVAILABLE
from connecthub.storage.failures import unreachable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def check(loaded: Settings | ConfigError, as_json: bool) -> None:
    """Check configuration, database, keys, Jobs and hubs: a line each, ok or what to do.

    Changes nothing. The exit status is 1 where there is a fault, and 0 with warnings.
    """
    findings = asyncio.run(_collect(loaded))
    if as_json:
        well = not any(one.state == "fault" for one in findings)
        click.echo(json.dumps({"ok": well, "checks": [asdict(one) for one in findings]}, ensure_ascii=False))
    else:
        for one in findings:
            click.echo(f"{one.state:<8} {one.name}: {' '.join(one.text.split())}")
    sys.exit(any(one.state == "fault" for one in findings))


async def _collect(loaded: Settings | ConfigError) -> list[Finding]:
    if isinstance(loaded, ConfigError):
        return [fault("configuration", str(loaded))]
    return [one async for one in _findings(loaded)]


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    yield ok("configuration", f"data folder {settings.data_dir}, key file {settings.fernet_key_path}")
    for one in machine_findings(settings):
        yield one
    if not settings.database.dsn and not _has_cluster(settings):
        yield warning(
            "database",
            "the embedded one is not there yet, or this user may not enter its folder: the first start makes "
            "it (connecthub serve)",
        )
        return
    try:
        async with daemon.open_unchanged(settings) as database:
            async for one in database_findings(settings, database):
                yield one
    except StartupError as error:
        yield fault("database", str(error))
    except UNAVAILABLE as error:
        yield fault("database", f"it was lost meanwhile ({error or type(error).__name__}): see that it runs")
    except asyncpg.PostgresError as error:
        yield fault("database", str(unreachable(error)))


def _has_cluster(settings: Settings) -> bool:
    return os.path.isdir(settings.data_dir / "postgres")  # unlike Path: False where one may not look
