"""Jobs as TOML, to be kept in git and moved between installations: one table per Job, named by its id.

The keys are the columns of jobs; what is left out has its default. `public_cfg` is a table, or a text of JSON
where it holds what TOML has no word for (null). `secret_cfg` never holds a secret in clear; it is one of

    a table of references   token = "env:OA_TOKEN" or "file:secrets/oa" (relative to the TOML file)
    one reference           to the whole JSON object
    a token                 as the database has it, of use only under the same key
    left out                the secrets stay as they are in the database
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Literal

import tomli_w

from connecthub.errors import RefusedError, SecretError
from connecthub.security.vault import Vault
from connecthub.storage.jobs import Row

PLAIN: dict[str, type] = {
    "name": str, "tags": list, "enabled": bool, "cron_expr": str, "timezone": str, "handler_path": str,
    "misfire": str, "misfire_window_s": int, "overlap": str, "timeout_s": int, "max_attempts": int,
    "retry_delays": list, "rerun_lost": bool, "priority": int,
}  # fmt: skip
_WORDS = {str: "a text", list: "a list", bool: "true or false", int: "a whole number"}
Secrets = Literal["references", "encrypted"]


@dataclass(frozen=True)
class Entry:
    """One Job of a file. `plain` are the columns that are given; `secrets` None: they stay as they are."""

    file: str
    id: str
    plain: dict[str, Any]
    public_cfg: str
    secrets: dict[str, Any] | None

    def at(self, key: str) -> str:
        """Where a key of it stands, for messages."""
        return f"{self.file}: jobs.{_name(self.id)}.{key}"


def write_jobs(jobs: Iterable[Row], secrets: Secrets, vault: Vault | None) -> str:
    """The TOML text of rows of jobs. References are named after Job and key; they need a `vault` that fits.

    Raises SecretError where secrets cannot be read.
    """
    tables = {job["id"]: _table(job, secrets, vault) for job in jobs}
    return tomli_w.dumps({"jobs": tables})


def _table(job: Row, secrets: Secrets, vault: Vault | None) -> dict[str, Any]:
    table = {name: job[name] for name in PLAIN if job[name] is not None}
    token = job["secret_cfg"]
    if token is not None:
        table["secret_cfg"] = token if secrets == "encrypted" else _references(job["id"], token, vault)
    public = json.loads(job["public_cfg"])
    table["public_cfg"] = json.dumps(public, ensure_ascii=False) if _holds_null(public) else public
    return table


def _references(job_id: str, token: str, vault: Vault | None) -> dict[str, str] | str:
    if vault is None:
        raise SecretError("the key file is missing")
    data = vault.decrypt(token)
    if not all(isinstance(value, str) for value in data.values()):
        return f"env:{_variable(job_id)}"  # a reference to one value is always a text
    return {key: f"env:{_variable(job_id, key)}" for key in data}


def _variable(*words: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", "_".join(words).upper()).strip("_") or "SECRET"


def _holds_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_null, value.values()))
    return any(map(_holds_null, value)) if isinstance(value, list) else value is None


def read_jobs(file: str, text: str, folder: Path, vault: Vault) -> list[Entry]:
    """The Jobs of a TOML text, references resolved from the environment and below `folder`.

    Raises RefusedError that names file and line, or file and key, and never a value of a secret.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RefusedError(f"{file}: {error}") from None
    jobs = data.pop("jobs", None)
    if data or not isinstance(jobs, dict) or not all(isinstance(job, dict) for job in jobs.values()):
        raise RefusedError(f"{file}: there must be tables [jobs.ID] and nothing else, as `job export` writes")
    return [_entry(Entry(file, job_id, {}, "{}", None), job, folder, vault) for job_id, job in jobs.items()]


def _entry(entry: Entry, job: dict[str, Any], folder: Path, vault: Vault) -> Entry:
    for key, value in job.items():
        if key in PLAIN:
            _require(type(value) is PLAIN[key], entry.at(key), f"must be {_WORDS[PLAIN[key]]}")
        elif key not in ("public_cfg", "secret_cfg"):
            raise RefusedError(f"{entry.at(key)}: there is no such setting; known: {', '.join(PLAIN)}")
    for key, item in (("tags", str), ("retry_delays", int)):
        _require(
            all(type(one) is item for one in job.get(key, [])),
            entry.at(key),
            f"must be a list, each of it {_WORDS[item]}",
        )
    return Entry(
        entry.file,
        entry.id,
        {key: value for key, value in job.items() if key in PLAIN},
        _public(entry, job.get("public_cfg", {})),
        _secrets(entry, job["secret_cfg"], folder, vault) if "secret_cfg" in job else None,
    )


def _public(entry: Entry, value: Any) -> str:
    where = entry.at("public_cfg")
    if isinstance(value, str):
        return value
    _require(isinstance(value, dict), where, "must be a table, or a text of JSON")
    _require(not _holds_time(value), where, "holds a date or time: write it as a text")
    return json.dumps(value, ensure_ascii=False)


def _holds_time(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_time, value.values()))
    return any(map(_holds_time, value)) if isinstance(value, list) else isinstance(value, date | time)


def _secrets(entry: Entry, value: Any, folder: Path, vault: Vault) -> dict[str, Any]:
    where = entry.at("secret_cfg")
    if isinstance(value, dict):
        return {key: _resolved(entry.at(f"secret_cfg.{key}"), text, folder) for key, text in value.items()}
    _require(isinstance(value, str), where, "must be a table of references, one reference, or a token")
    if not value.startswith(("env:", "file:")):
        try:
            return vault.decrypt(value)
        except SecretError as error:
            raise RefusedError(
                f"{where}: {error}, or give references (env:NAME, file:PATH) instead"
            ) from None
    try:
        data = json.loads(_resolved(where, value, folder))
    except ValueError:
        data = None
    _require(isinstance(data, dict), where, f"{value} holds no JSON object")
    return dict(data)


def _resolved(where: str, reference: Any, folder: Path) -> str:
    """What a reference names, without the line break at the end of a file."""
    kind, _, name = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if kind == "env" and name:
        found = os.environ.get(name)
        _require(found is not None, where, f"the environment has no {name}: set it to the secret")
        return str(found)
    _require(kind == "file" and name != "", where, "must be env:NAME or file:PATH, never the secret itself")
    try:
        return (folder / name).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        words = getattr(error, "strerror", None) or "is no text in UTF-8"
        raise RefusedError(f"{where}: file {folder / name} cannot be read: {words}") from None


def _require(holds: bool, where: str, text: str) -> None:
    if not holds:
        raise RefusedError(f"{where}: {text}")


def _name(job_id: str) -> str:
    """An id as TOML writes it in a key."""
    return job_id if re.fullmatch("[A-Za-z0-9_-]+", job_id) else json.dumps(job_id, ensure_ascii=False)
