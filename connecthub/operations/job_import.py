"""Jobs from files into the database: checked as the form does, stored all or none."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import asyncpg

from connecthub.definitions.check import Checked, Checker, Typed
from connecthub.definitions.differences import Change, differences, for_audit
from connecthub.definitions.form import Values, new_values
from connecthub.errors import RefusedError
from connecthub.operations.job_file import PLAIN, Entry
from connecthub.plugins.discover import Catalogue
from connecthub.storage.jobs import JobSave, read_job, save_jobs

if TYPE_CHECKING:
    from connecthub.config import Settings
    from connecthub.security.vault import Vault
    from connecthub.storage.audit import Actor
    from connecthub.storage.database import Database
    from connecthub.storage.jobs import Row


@dataclass(frozen=True)
class Step:
    """What importing one Job would do: nothing where there are no `changes`."""

    entry: Entry
    is_new: bool
    changes: list[Change]
    save: JobSave


@dataclass(frozen=True)
class Plan:
    """All steps, and all that is wrong: lines that name file and key. With problems nothing is imported."""

    steps: list[Step]
    problems: list[str]


async def plan_import(settings: Settings, db: Database, vault: Vault, entries: Sequence[Entry]) -> Plan:
    """Compare Jobs of files with the database, and check them as the form does; changes nothing."""
    catalogue = Catalogue(settings.plugins.packages, settings.plugin_path)
    checker = Checker(settings, vault, catalogue)
    at_once = asyncio.Semaphore(os.cpu_count() or 1)  # each check of a handler is a process

    async def look(entry: Entry) -> tuple[Row | None, Checked]:
        async with at_once:
            stored = await read_job(db, entry.id)
            return stored, await _check(checker, entry, stored, settings.scheduler.timezone)

    twice = [id for id, count in Counter(entry.id for entry in entries).items() if count > 1]
    plan = Plan([], [f"Job {id} is in these files twice" for id in twice])
    looked = await asyncio.gather(*map(look, entries))
    for entry, (stored, checked) in zip(entries, looked, strict=True):
        plan.problems.extend(_problems(entry, checked))
        if checked.definition is not None and not checked.errors:
            plan.steps.append(_step(entry, stored, checked, vault))
    return plan


async def _check(checker: Checker, entry: Entry, stored: Row | None, zone: str) -> Checked:
    """What stays as it is needs no look at its handler, which takes a process and its time."""
    values = _values(entry, stored, zone)
    checked = await checker.check(values, Typed.of({}), stored, "en", load=False)
    if stored is not None and not checked.errors and not checked.changes:
        return checked
    return await checker.check(values, Typed.of({}), stored, "en")


def _values(entry: Entry, stored: Row | None, zone: str) -> Values:
    """What a person would type into the form to make it what the file says."""
    values = new_values(zone) | {"id": entry.id, "public_cfg": entry.public_cfg}
    for name, value in entry.plain.items():
        if isinstance(value, bool):
            values[name] = "on" if value else ""
        else:
            values[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if entry.secrets is not None:
        values["secret_cfg"] = json.dumps(entry.secrets)
    elif stored is not None:
        values["secret_cfg"] = ""
    return values


def _problems(entry: Entry, checked: Checked) -> list[str]:
    """In the words of the form, those of single fields with the object that the field is in."""
    found = []
    for name, texts in checked.errors.items():
        part, _, key = name.partition(".")
        where = entry.at({"p": "public_cfg", "s": "secret_cfg"}.get(part, name))
        found += [": ".join(filter(None, (where, key, " ".join(text.split())))) for text in texts]
    return found


def _step(entry: Entry, stored: Row | None, checked: Checked, vault: Vault) -> Step:
    definition = checked.definition
    assert definition is not None  # noqa: S101 - the caller looked
    changes = checked.changes
    if stored is None:
        nothing = {**dict.fromkeys(PLAIN), "public_cfg": "{}", "secret_cfg": None}
        changes = differences(nothing, asdict(definition), vault)
    detail = {
        "import": entry.file,
        "changed": sorted({change.field for change in changes}),
        "secret_keys": checked.secret_keys,
        "changes": for_audit(changes),
    }
    seen = None if stored is None else stored["revision_id"]
    return Step(entry, stored is None, changes, JobSave(definition, detail, seen))


async def store_import(db: Database, plan: Plan, actor: Actor) -> None:
    """Store all changes of a plan without problems, or none of them.

    Raises RefusedError where a Job was changed since it was planned, or the database refuses a value.
    """
    try:
        await save_jobs(db, [step.save for step in plan.steps if step.changes], actor)
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        raise RefusedError(
            f"the database refused a value ({type(error).__name__}): nothing was imported"
        ) from None
