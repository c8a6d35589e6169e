"""What `connecthub check` finds of the Jobs: packages, handlers, schedules and secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from connecthub import cron
from connecthub.errors import ScheduleError, SecretError
from connecthub.operations.finding import Finding, fault, ok, warning
from connecthub.plugins.discover import Catalogue, Found, missing_packages
from connecthub.plugins.inspect import inspect_handler

if TYPE_CHECKING:
    import asyncpg

    from connecthub.config import Settings
    from connecthub.security.vault import Vault

_Judge = Callable[["asyncpg.Record"], str | None]


async def plugin_findings(settings: Settings, jobs: Sequence[asyncpg.Record]) -> list[Finding]:
    """The lines `packages` and `handlers`. Plugins are loaded in child processes only."""
    packages, path = settings.plugins.packages, settings.plugin_path
    found = await Catalogue(packages, path).found()
    findings = [
        warning(
            "packages", f"there is no package {name} in {path} or elsewhere on sys.path: correct [plugins]"
        )
        for name in missing_packages(packages, path)
    ]
    findings += [warning("packages", f"{one.module} cannot be loaded: {one.error}") for one in found.broken]
    if not findings:
        findings.append(ok("packages", f"{', '.join(packages)} in {path}: {len(found.handlers)} handlers"))
    errors = await _handler_errors(settings, found, {job["handler_path"] for job in jobs})
    findings += _of_jobs("handlers", "load", jobs, lambda job: errors.get(job["handler_path"]))
    return findings


async def _handler_errors(settings: Settings, found: Found, paths: set[str]) -> dict[str, str]:
    """Why the handlers that the catalogue does not know cannot be loaded; it lists no imported classes."""
    errors = {}
    for path in sorted(path for path in paths if found.get(path) is None):
        report = await inspect_handler(path, packages=settings.plugins.packages, path=settings.plugin_path)
        if report.error is not None:
            errors[path] = report.error
    return errors


def schedule_findings(jobs: Sequence[asyncpg.Record], now: datetime) -> Iterator[Finding]:
    """The lines `schedules`: expressions that are wrong or never fire, unknown zones."""

    def judge(job: asyncpg.Record) -> str | None:
        try:
            cron.check(job["cron_expr"], job["timezone"], now)
        except ScheduleError as error:
            return f"{error}: correct its cron expression or time zone"
        return f"{job['schedule_error']}: save the Job again" if job["schedule_error"] else None

    return _of_jobs("schedules", "fire", jobs, judge)


def secret_findings(jobs: Sequence[asyncpg.Record], vault: Vault) -> Iterator[Finding]:
    """The lines `secrets`: tokens that cannot be decrypted."""

    def judge(job: asyncpg.Record) -> str | None:
        try:
            vault.decrypt(job["secret_cfg"])
        except SecretError as error:
            return str(error)
        return None

    return _of_jobs("secrets", "can be decrypted", [job for job in jobs if job["secret_cfg"]], judge)


def _of_jobs(name: str, well: str, jobs: Sequence[asyncpg.Record], judge: _Judge) -> Iterator[Finding]:
    """A line per Job that is not well, or one for all; a disabled Job is only warned of."""
    all_well = True
    for job in jobs:
        problem = judge(job)
        if problem is not None:
            all_well = False
            say = fault if job["enabled"] else warning
            yield say(name, f"Job {job['id']}{'' if job['enabled'] else ' (disabled)'}: {problem}")
    if all_well:
        yield ok(name, f"those of all {len(jobs)} Jobs {well}" if jobs else "no Job has any yet")
