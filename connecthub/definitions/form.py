"""The form of a Job: from what a person typed to a definition, or to what is wrong with each field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from connecthub.cron import check
from connecthub.cron_rule import CronError
from connecthub.cron_words import explain
from connecthub.definitions.fields import WrongField, parse_json
from connecthub.storage.jobs import JobDefinition, Row
from connecthub.words import say

MISFIRE = ("latest", "all", "skip")
OVERLAP = ("skip", "queue", "allow")
_SWITCHES = ("enabled", "rerun_lost")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
# Parts of the admin's own addresses: /admin/jobs/delete/run must not mean two things.
_RESERVED = frozenset({"create", "delete", "details", "edit", "list", "preview", "restore", "run"})
_LONGEST = 200  # characters of an id, a name or a tag
_INT4 = 2**31 - 1
_ANY = "* * * * *"
_MOST_DELAYS = 100

Values = dict[str, str]
Errors = dict[str, list[str]]


def new_values(zone: str) -> Values:
    """What the form of a new Job shows."""
    return {
        "id": "", "name": "", "tags": "", "enabled": "on", "cron_expr": "", "timezone": zone,
        "handler_path": "", "public_cfg": "{}", "secret_cfg": "{}", "misfire": "latest",
        "misfire_window_s": "3600", "overlap": "skip", "timeout_s": "", "max_attempts": "1",
        "retry_delays": "60, 300", "rerun_lost": "", "priority": "0",
    }  # fmt: skip


def stored_values(job: Row | Mapping[str, Any]) -> Values:
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


def say_wrong(error: WrongField, language: str) -> str:
    """What is wrong with one field, in words."""
    details = dict(error.details)
    if "cause" in details:
        details["what"] = say(language, f"json.{details['cause']}")
    return say(language, f"error.{error.key}", **details)


class Reader:
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
        where = ""
        try:
            data = parse_json(self._values[name])
        except WrongField as error:
            if error.key == "characters":
                self._say(name, "characters")
                return None
            where = self._where(error)
            data = None
        if not isinstance(data, dict):
            self.wrong(name, say(self._language, f"error.{name}") + where)
            return None
        return data

    def _where(self, error: WrongField) -> str:
        return say_wrong(error, self._language) if error.key == "json_at" else ""

    def _id(self) -> str:
        job_id = self._text("id", required=True)
        if job_id and not _ID.fullmatch(job_id):
            self._say("id", "id")
        elif job_id in _RESERVED:
            self._say("id", "reserved", id=job_id)
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
