"""The schedule beside the form of a Job: in words, with its next fires, and the zones to choose from."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from connecthub import cron
from connecthub.cron_words import explain, in_words
from connecthub.definitions.form import Values
from connecthub.errors import ScheduleError

_COMMON_ZONES = ("Asia/Shanghai", "Asia/Hong_Kong", "Asia/Singapore", "Asia/Tokyo", "Europe/Berlin",
                 "Europe/London", "America/New_York", "America/Los_Angeles", "UTC")  # fmt: skip
_FIRES = 5


def schedule(values: Values, language: str) -> dict[str, Any]:
    """The schedule in words and its next fires in its zone, or what is wrong with it."""
    expression, zone = values["cron_expr"].strip(), values["timezone"].strip()
    if not expression:
        return {"words": "", "fires": [], "wrong_schedule": ""}
    try:
        fires = cron.next_fires(expression, zone, datetime.now(UTC), _FIRES)
        local = ZoneInfo(zone)
        marked = [(fire, fire.at.astimezone(local)) for fire in cron.moved(expression, zone, fires)]
        return {"words": in_words(expression, language), "fires": marked, "wrong_schedule": ""}
    except ScheduleError as error:
        return {"words": "", "fires": [], "wrong_schedule": explain(error, language)}


@lru_cache
def zones() -> list[str]:
    """All zones by name, common ones first."""
    known = available_timezones()
    others = sorted(
        name for name in known - set(_COMMON_ZONES) if "/" in name and not name.startswith("Etc/")
    )
    return [*_COMMON_ZONES, *others]
