"""What the templates need: texts in the reader's language, times in one zone, durations, JSON, links."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import jinja2
from jinja2.runtime import Context
from markupsafe import Markup

from connecthub import cron
from connecthub.errors import ScheduleError
from connecthub.web.views import pretty
from connecthub.web.words import say, say_reason


def install(env: jinja2.Environment, zone: str) -> None:
    """Add our functions and filters to the templates; all times are shown in `zone`."""
    info = ZoneInfo(zone)

    def when(moment: datetime | None) -> Markup:
        if moment is None:
            return Markup("—")
        local = moment.astimezone(info)
        title = f"{local.isoformat(sep=' ', timespec='seconds')} {zone}"
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            moment.isoformat(), title, f"{local:%Y-%m-%d %H:%M:%S}"
        )

    env.trim_blocks = env.lstrip_blocks = True
    env.globals.update(t=_say, reason=_reason, duration=_duration, link=_link, next_fire=next_fire)
    env.filters.update(when=when, pretty=pretty, segment=segment)


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


def segment(text: str) -> str:
    """`text` as one part of a path."""
    return quote(text, safe=":")


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
    language = context["request"].state.language
    seconds = max((end - begin).total_seconds(), 0)
    if seconds < 10:
        return say(language, "seconds", n=f"{seconds:.1f}")
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return say(language, "seconds", n=rest)
    if minutes < 60:
        return say(language, "minutes", m=minutes, s=f"{rest:02}")
    return say(language, "hours", h=minutes // 60, m=f"{minutes % 60:02}")


@jinja2.pass_context
def _link(context: Context, **changes: Any) -> str:
    """The query of this page with some parameters changed."""
    query = {**context["request"].query_params, **changes}
    return "?" + urlencode({name: value for name, value in query.items() if value not in ("", None)})
