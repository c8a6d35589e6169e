"""The form of a Job: from what a person typed to a definition, or to what is wrong with each field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from connecthub.config import Settings
from connecthub.cron import check
from connecthub.cron_rule import CronError
from connecthub.cron_words import explain
from connecthub.errors import SecretError
from connecthub.plugins.inspect import inspect_handler
from connecthub.security.vault import Vault
from connecthub.storage.jobs import JobDefinition, Row
from connecthub.web.words import say

MISFIRE = ("latest", "all", "skip")
OVERLAP = ("skip", "queue", "allow")
_SWITCHES = ("enabled", "rerun_lost")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_LONGEST = 200  # characters of an id, a name or a tag
_INT4 = 2**31 - 1
_ANY = "* * * * *"
_MOST_DELAYS = 100

Values = dict[str, str]


@dataclass
class Checked:
    """A definition, or the errors by field; `secret_keys` are the names of the secrets that were typed."""

    errors: dict[str, list[str]] = field(default_factory=dict)
    definition: JobDefinition | None = None
    secret_keys: list[str] = field(default_factory=list)


def new_values(zone: str) -> Values:
    """What the form of a new Job shows."""
    return {
        "id": "", "name": "", "tags": "", "enabled": "on", "cron_expr": "", "timezone": zone,
        "handler_path": "", "public_cfg": "{}", "secret_cfg": "", "misfire": "latest",
        "misfire_window_s": "3600", "overlap": "skip", "timeout_s": "", "max_attempts": "1",
        "retry_delays": "60, 300", "rerun_lost": "", "priority": "0",
    }  # fmt: skip


def stored_values(job: Row) -> Values:
    """What the form of a stored Job shows; never its secrets."""
    plain = ("id", "name", "cron_expr", "timezone", "handler_path", "misfire", "overlap")
    numbers = ("misfire_window_s", "timeout_s", "max_attempts", "priority")
    return {
        **{name: str(job[name]) for name in plain},
        **{name: "" if job[name] is None else str(job[name]) for name in numbers},
        **{name: "on" if job[name] else "" for name in _SWITCHES},
        "tags": ", ".join(job["tags"]),
        "retry_delays": ", ".join(str(delay) for delay in job["retry_delays"]),
        "public_cfg": json.dumps(json.loads(job["public_cfg"]), ensure_ascii=False, indent=2),
        "secret_cfg": "",
    }


def posted_values(posted: Mapping[str, str], shown: Values) -> Values:
    """What was typed. A field that was not sent keeps what the form shows; a switch not sent is off."""
    kept = {name: value for name, value in shown.items() if name not in (*_SWITCHES, "public_cfg")}
    blank = dict.fromkeys((*_SWITCHES, "public_cfg"), "")
    sent = {name: value for name, value in posted.items() if name in shown}
    values = {**kept, **blank, **sent}
    for name in _SWITCHES:
        values[name] = "" if values[name].lower() in ("", "0", "false", "off") else "on"
    return values


async def check_form(
    values: Values, stored: Row | None, settings: Settings, vault: Vault, language: str
) -> Checked:
    """Check everything that was typed; `stored` is the Job being edited, None for a new one."""
    reader = _Reader(values, language)
    public, secret = reader.json("public_cfg"), None
    keep = stored is not None and not values["secret_cfg"].strip()
    if keep:
        secret = _stored_secret(stored, vault)
    else:
        secret = reader.json("secret_cfg")
    draft = reader.definition(is_new=stored is None)
    if draft.handler_path:
        report = await inspect_handler(
            draft.handler_path,
            packages=settings.plugins.packages,
            path=settings.plugin_path,
            public_cfg=public,
            secret_cfg=secret,
        )
        if report.error:
            reader.wrong("handler_path", report.error)
        for problem in report.field_errors:
            reader.wrong(problem.section, ": ".join(filter(None, (problem.field, problem.message))))
    checked = Checked(reader.errors, secret_keys=[] if keep or secret is None else sorted(secret))
    if not reader.errors:
        token = vault.encrypt(secret) if secret and not keep else None
        checked.definition = replace(draft, secret_cfg=token, keep_secret=keep)
    return checked


def _stored_secret(stored: Row | None, vault: Vault) -> dict[str, Any] | None:
    """The stored secrets, None where they cannot be read: a Job with a lost key can still be disabled."""
    token = None if stored is None else stored["secret_cfg"]
    if token is None:
        return {}
    try:
        return vault.decrypt(token)
    except SecretError:
        return None


class _Reader:
    """Reads typed values, and collects what is wrong with them."""

    def __init__(self, values: Values, language: str) -> None:
        self._values = values
        self._language = language
        self.errors: dict[str, list[str]] = {}

    def wrong(self, name: str, text: str) -> None:
        self.errors.setdefault(name, []).append(text)

    def _say(self, name: str, key: str, **details: object) -> None:
        self.wrong(name, say(self._language, f"error.{key}", **details))

    def definition(self, *, is_new: bool) -> JobDefinition:
        """The definition without its secrets, of use only where there were no errors."""
        job_id = self._id() if is_new else self._values["id"]
        cron_expr, timezone = self._schedule()
        attempts = self._number("max_attempts", 1, 1000)
        rerun_lost = self._values["rerun_lost"] == "on"
        if rerun_lost and attempts < 2:
            self._say("rerun_lost", "rerun_lost")
        timeout = self._values["timeout_s"].strip()
        return JobDefinition(
            id=job_id,
            name=self._text("name") or job_id,
            tags=self._tags(),
            enabled=self._values["enabled"] == "on",
            cron_expr=cron_expr,
            timezone=timezone,
            handler_path=self._text("handler_path", required=True),
            public_cfg=self._values["public_cfg"].strip(),
            secret_cfg=None,
            misfire=self._choice("misfire", MISFIRE),
            misfire_window_s=self._number("misfire_window_s", 0, _INT4),
            overlap=self._choice("overlap", OVERLAP),
            timeout_s=self._number("timeout_s", 0, _INT4) if timeout else None,
            max_attempts=attempts,
            retry_delays=self._delays(),
            rerun_lost=rerun_lost,
            priority=self._number("priority", -_INT4, _INT4),
        )

    def json(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a field, or None."""
        try:
            data = json.loads(self._values[name], parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            self._say(name, name)
            return None
        try:
            json.dumps(data, ensure_ascii=False).encode()  # a lone surrogate fails here
            storable = not _has_zero(data)
        except (UnicodeEncodeError, RecursionError):
            storable = False
        if not storable:
            self._say(name, "characters")
            return None
        return data

    def _id(self) -> str:
        job_id = self._text("id", required=True)
        if job_id and not _ID.fullmatch(job_id):
            self._say("id", "id")
        return job_id

    def _text(self, name: str, *, required: bool = False) -> str:
        text = self._values[name].strip()
        if required and not text:
            self._say(name, "required")
        if len(text) > _LONGEST:
            self._say(name, "long", limit=_LONGEST)
        return text

    def _tags(self) -> list[str]:
        tags = [tag.strip() for tag in re.split("[,，]", self._values["tags"])]
        if any(len(tag) > _LONGEST for tag in tags):
            self._say("tags", "long", limit=_LONGEST)
        return list(dict.fromkeys(filter(None, tags)))

    def _schedule(self) -> tuple[str, str]:
        expression = self._values["cron_expr"].strip()
        zone = self._text("timezone", required=True)
        # Each with a good partner, so that two wrong fields are told at once.
        for name, pair in (("cron_expr", (expression, "UTC")), ("timezone", (_ANY, zone or "UTC"))):
            try:
                check(*pair, datetime.now(UTC))
            except CronError as error:
                self.wrong(name, explain(error, self._language))
        return expression, zone

    def _choice(self, name: str, allowed: tuple[str, ...]) -> str:
        if self._values[name] not in allowed:
            self._say(name, "choice", allowed=", ".join(allowed))
        return self._values[name]

    def _number(self, name: str, low: int, high: int) -> int:
        number = _whole(self._values[name])
        if number is None or not low <= number <= high:
            self._say(name, "number", low=low, high=high, got=self._values[name][:40])
            return low
        return number

    def _delays(self) -> list[int]:
        delays = [_whole(part) for part in re.split(r"[,，\s]+", self._values["retry_delays"].strip())]
        numbers = [delay for delay in delays if delay is not None and 0 <= delay <= _INT4]
        if len(numbers) < len(delays) or len(numbers) > _MOST_DELAYS:
            self._say("retry_delays", "delays", high=_INT4, most=_MOST_DELAYS)
        return numbers


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,12}", text.strip()) else None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond all bounds")
    return number


def _has_zero(value: object) -> bool:
    """Whether a key or text holds the character U+0000, which PostgreSQL cannot store."""
    if isinstance(value, dict):
        return any("\0" in key or _has_zero(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_has_zero(item) for item in value)
    return isinstance(value, str) and "\0" in value
