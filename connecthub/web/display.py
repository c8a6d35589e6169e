"""What the templates need: texts in the reader's language, times in one zone, durations, JSON, links."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import jinja2
from jinja2.runtime import Context

from connecthub import cron
from connecthub.errors import ScheduleError
from connecthub.web import paths, times
from connecthub.web.auth import came_from
from connecthub.web.charts import progress
from connecthub.web.live import version
from connecthub.web.roles import may
from connecthub.web.run_words import says
from connecthub.web.views import pretty
from connecthub.words import LANGUAGES, say, say_reason

# What a page was told to say once, about what was done a moment ago: no part of its address.
FLASH = ("said", "n", "undo")


def install(env: jinja2.Environment) -> None:
    """Add our functions and filters to the templates; all times are shown in the reader's zone."""
    env.trim_blocks = env.lstrip_blocks = True
    env.globals.update(
        t=_say,
        reason=_reason,
        duration=_duration,
        link=_link,
        next_fire=next_fire,
        may=_may,
        here_link=_here_link,
        action_words=_action_words,
        now=lambda: datetime.now(UTC),
        seconds_long=times.seconds_long,
        seconds=lambda n: timedelta(seconds=n),
        progress=progress,
        new_token=uuid4,
        says=says,
    )
    env.filters.update(
        when=times.when,
        clock=_clock,
        pretty=pretty,
        segment=paths.segment,
        listed=paths.listed,
        version=version,
        from_json=json.loads,
        fire=times.fire,
        ago=times.ago,
        elapsed=times.elapsed,
        countdown=times.countdown,
    )


@jinja2.pass_context
def _clock(context: Context, moment: datetime) -> str:
    """A moment of lately, for a sentence: the time, with the day in front where that is not today."""
    local = moment.astimezone(context["request"].state.zone)
    is_today = local.date() == datetime.now(local.tzinfo).date()
    return f"{local:%H:%M}" if is_today else f"{local:%m-%d %H:%M}"


@jinja2.pass_context
def _action_words(context: Context, action: str) -> str:
    """An action of the audit in words; one that has none yet stays what it is."""
    return LANGUAGES[context["request"].state.language].get(f"action.{action}", action)


@jinja2.pass_context
def _here_link(context: Context) -> str:
    """Where a form in the frame leads back to."""
    return came_from(context["request"])


@jinja2.pass_context
def _may(context: Context, role: str) -> bool:
    """Whether the reader has this role or one that includes it."""
    return may(context["request"].state.visit, role)


def next_fire(
    next_run_at: datetime | None, waits: bool, cron_expr: str, zone: str, schedule_from: datetime
) -> datetime | None:
    """When a Job fires next; `waits`: the tick that stores it for a new schedule comes within a minute."""
    if next_run_at is not None or not waits:
        return next_run_at
    try:
        return cron.next_fire(cron_expr, zone, schedule_from)
    except ScheduleError:
        return None


@jinja2.pass_context
def _say(context: Context, key: str, **values: Any) -> str:
    return say(context["request"].state.language, key, **values)


@jinja2.pass_context
def _reason(context: Context, reason: str | None) -> str:
    return say_reason(context["request"].state.language, reason) if reason else ""


@jinja2.pass_context
def _duration(context: Context, begin: datetime | None, end: datetime | None) -> str:
    """How long it took, in the units a person would use."""
    if begin is None or end is None:
        return "—"
    return times.length((end - begin).total_seconds(), context["request"].state.language)


@jinja2.pass_context
def _link(context: Context, **changes: Any) -> str:
    """The query of this page with some parameters changed."""
    kept = {name: value for name, value in context["request"].query_params.items() if name not in FLASH}
    return link_to("", **{**kept, **changes})


def link_to(path: str, **parameters: object) -> str:
    """`path` with a query of the parameters that are not empty."""
    return f"{path}?" + urlencode(
        {name: value for name, value in parameters.items() if value not in ("", None)}
    )
