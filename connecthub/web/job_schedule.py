"""A schedule as people read it: in words, its next fires, or what is wrong; and the zones to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from connecthub import cron
from connecthub.cron_words import explain, in_words
from connecthub.errors import ScheduleError
from connecthub.storage.jobs import Row

_COMMON_ZONES = ("Asia/Shanghai", "Asia/Hong_Kong", "Asia/Singapore", "Asia/Tokyo", "Europe/Berlin",
                 "Europe/London", "America/New_York", "America/Los_Angeles", "UTC")  # fmt: skip


def schedule(expression: str, zone: str, language: str, count: int) -> dict[str, Any]:
    """`words` of the schedule and its next `fires` in its zone, or what is wrong: `wrong_schedule`."""
    try:
        fires = cron.next_fires(expression, zone, datetime.now(UTC), count)
        local = ZoneInfo(zone)
        marked = [(fire, fire.at.astimezone(local)) for fire in cron.moved(expression, zone, fires)]
        return {"words": in_words(expression, language), "fires": marked, "wrong_schedule": ""}
    except ScheduleError as error:
        return {"words": "", "fires": [], "wrong_schedule": explain(error, language)}


def wrong_schedule(job: Mapping[str, Any] | Row, language: str) -> str:
    """What keeps a Job from firing; else what the tick stored, "" where nothing is wrong."""
    found: str = schedule(job["cron_expr"], job["timezone"], language, 1)["wrong_schedule"]
    return found or job["schedule_error"] or ""


@lru_cache
def zones() -> list[str]:
    """All zones by name, common ones first."""
    known = available_timezones()
    others = sorted(
        name for name in known - set(_COMMON_ZONES) if "/" in name and not name.startswith("Etc/")
    )
    return [*_COMMON_ZONES, *others]
