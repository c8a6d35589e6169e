"""A new Job with its test, as files to begin from."""

from __future__ import annotations

import keyword
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from connecthub.errors import RefusedError

_JOB = '''\
"""{title}."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from connecthub.plugins import BaseJob

log = logging.getLogger(__name__)


class {name}Params(BaseModel):
    """The parameters (public_cfg) of the Job: its form in the admin is drawn from this."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(description="Whom to greet")
    dry_run: bool = Field(False, description="Only tell what would be done")


class {name}Secrets(BaseModel):
    """The secrets (secret_cfg): stored encrypted, and masked in all that a run leaves behind."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: str = Field(description="Token of the other system")


class {name}Job(BaseJob):
    """{title}: this line is shown where a person picks a handler."""

    Params = {name}Params
    Secrets = {name}Secrets

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
        """Returns what is stored as the result; numbers are shown in lists."""
        given, hidden = {name}Params(**params), {name}Secrets(**secrets)
        log.info("signed in with %s", hidden.token)  # shown as ***
        greeted = 0
        for number, name in enumerate(given.names, 1):
            if self.ctx.cancelled:  # look here where the work can stop
                break
            log.info("%s %s", "would greet" if given.dry_run else "hello", name)
            greeted += not given.dry_run
            self.ctx.progress(number, len(given.names))
        return {{"greeted": greeted, "message": f"greeted {{greeted}} of {{len(given.names)}}"}}
'''
_TEST = '''\
"""{title}, run as a hub would run it, with a captured context."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connecthub.testing import Ran

pytest_plugins = ["connecthub.testing"]

HANDLER = "{handler_path}"
SECRETS = {{"token": "made-up-token"}}


def test_it_does_its_work(run_job: Callable[..., Ran]) -> None:
    ran = run_job(HANDLER, {{"names": ["Li Na", "Wang"]}}, SECRETS)
    assert (ran.status, ran.message) == ("SUCCESS", "greeted 2 of 2")
    assert ran.result["greeted"] == 2 and ran.progress == [(1, 2), (2, 2)]
    assert "hello Li Na" in ran.log


def test_it_leaves_no_secret_behind(run_job: Callable[..., Ran]) -> None:
    ran = run_job(HANDLER, {{"names": []}}, SECRETS)
    assert "signed in with ***" in ran.log and SECRETS["token"] not in repr(ran)


def test_it_stops_where_it_is_cancelled(run_job: Callable[..., Ran]) -> None:
    ran = run_job(HANDLER, {{"names": ["Li Na", "Wang"]}}, SECRETS, cancel_at=1)
    assert (ran.status, ran.result["greeted"]) == ("CANCELLED", 1)


def test_parameters_that_do_not_fit_are_refused(run_job: Callable[..., Ran]) -> None:
    with pytest.raises(ValueError, match="names"):
        run_job(HANDLER, {{}}, SECRETS)
'''
_PARAMS = '{"names": ["Li Na", "Wang"], "dry_run": true}\n'


@dataclass(frozen=True)
class Made:
    """The files that were written, and how the Job is called."""

    files: tuple[Path, ...]
    handler_path: str
    params: Path
    test: Path


def write(name: str, folder: Path, package: str) -> Made:
    """Write the Job `name` (such as sync_people) below `folder`/`package`, and its test into `folder`/tests.

    Raises RefusedError for a name that is none for a Python package, and where one of the files is there
    already or cannot be written: then none is.
    """
    words = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", words) or keyword.iskeyword(words):
        raise RefusedError(
            f"{name[:80]!r} cannot name a Job: write small letters, digits and _, beginning with a letter, "
            "such as sync_people"
        )
    if words in sys.stdlib_module_names or words == "tests":
        raise RefusedError(
            f"{name!r} is the name of a Python module already; choose another, {words}_job say"
        )
    package_folder = folder.joinpath(*package.split("."))
    job_folder = package_folder / words
    handler_path = f"{package}.{words}.job:{_class_name(words)}Job"
    title = words.replace("_", " ").strip().capitalize()
    packages = [package_folder, *package_folder.parents][: package.count(".") + 1]
    inits = {one / "__init__.py": "" for one in packages if not os.path.exists(one / "__init__.py")}
    made = {
        job_folder / "__init__.py": "",
        job_folder / "job.py": _JOB.format(title=title, name=_class_name(words)),
        job_folder / "params.example.json": _PARAMS,
        folder / "tests" / f"test_{words}.py": _TEST.format(title=title, handler_path=handler_path),
    }
    there = [str(file) for file in (job_folder, *made) if os.path.exists(file)]
    if there:
        raise RefusedError(f"{there[0]} is there already, and nothing was written; choose another name")
    _write_all(inits | made)
    job, params, test = list(made)[1:]
    return Made((job, params, test), handler_path, params, test)


def _class_name(words: str) -> str:
    return "".join(word.capitalize() for word in words.split("_"))


def _write_all(files: dict[Path, str]) -> None:
    written: list[Path] = []
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as output:
                written.append(file)
                output.write(text)
    except OSError as error:
        for done in written:
            done.unlink(missing_ok=True)
        raise RefusedError(
            f"{error.filename or file} cannot be written: {error.strerror}; make its folder writable for "
            "this user, or set [plugins] path (CONNECTHUB_PLUGINS__PATH) to another one"
        ) from None
