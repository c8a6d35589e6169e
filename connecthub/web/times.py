"""Moments and durations as people read them, in the reader's language and zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jinja2
from jinja2.runtime import Context
from markupsafe import Markup

from connecthub.words import say

_WEEKDAYS = "mon", "tue", "wed", "thu", "fri", "sat", "sun"


def clock(moment: datetime, now: datetime, zone: ZoneInfo) -> str:
    """Today `14:05:00`, this year `11-23 14:05`, else `2025-11-23 14:05`."""
    local, today = moment.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%m-%d %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M}"


def fire_clock(moment: datetime, now: datetime, zone: ZoneInfo, language: str) -> str:
    """A fire time, which is a whole minute: `14:05`, or `Mon 11-23 14:05`."""
    local, today = moment.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M}"
    day = say(language, f"weekday.{_WEEKDAYS[local.weekday()]}")
    return f"{day} {local:%m-%d %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M}"


def length(seconds: float, language: str) -> str:
    """`0.3 s`, `12 s`, `1 min 33 s`, `2 h 05 min`, `3 d 4 h`."""
    seconds = max(seconds, 0)
    if seconds < 9.95:
        return say(language, "seconds", n=f"{seconds:.1f}")
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return say(language, "seconds", n=rest)
    if minutes < 60:
        return say(language, "minutes", m=minutes, s=f"{rest:02}")
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return say(language, "hours", h=hours, m=f"{minutes:02}")
    return say(language, "days", d=hours // 24, h=hours % 24)


def relative(moment: datetime, now: datetime, language: str) -> str:
    """`35 min ago`, `in 54 min`: the largest unit only."""
    seconds = (now - moment).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        n = int(abs(seconds) // size)
        if n or unit == "s":
            return say(language, f"{'ago' if seconds >= 0 else 'in'}.{unit}", n=n)
    raise AssertionError


def stamp(moment: datetime, text: str, zone: ZoneInfo, tick: str = "") -> Markup:
    """A <time>: `text` on screen, the whole moment on hover; `tick`: a script keeps it going."""
    local = moment.astimezone(zone)
    # isoformat writes +08:00, strftime +0800.
    title = f"{local.isoformat(sep=' ', timespec='seconds')[:19]} {local.isoformat()[-6:]} {zone.key}"
    ticking = Markup(' data-tick="{}"').format(tick) if tick else ""
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        moment.isoformat(), title, ticking, text
    )


def zone_named(name: str | None) -> ZoneInfo | None:
    """The zone of this name, None where there is none."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@jinja2.pass_context
def when(context: Context, moment: datetime | None) -> Markup:
    """A moment in the reader's zone."""
    if moment is None:
        return Markup("—")
    zone = context["request"].state.zone
    return stamp(moment, clock(moment, datetime.now(UTC), zone), zone)


@jinja2.pass_context
def fire(context: Context, moment: datetime | None, job_zone: str | None = None) -> Markup:
    """A fire time in the reader's zone, and in the Job's beside it where that shows another time."""
    if moment is None:
        return Markup("—")
    state, now = context["request"].state, datetime.now(UTC)
    mine = stamp(moment, fire_clock(moment, now, state.zone, state.language), state.zone)
    zone = zone_named(job_zone)
    if zone is None or moment.astimezone(zone).utcoffset() == moment.astimezone(state.zone).utcoffset():
        return mine
    local = moment.astimezone(zone)
    is_same_day = local.date() == moment.astimezone(state.zone).date()
    theirs = f"{local:%H:%M}" if is_same_day else fire_clock(moment, now, zone, state.language)
    return mine + Markup(' <span class="hub-muted">({} {})</span>').format(theirs, zone.key)


@jinja2.pass_context
def ago(context: Context, moment: datetime | None) -> Markup:
    """How long ago, or until when."""
    if moment is None:
        return Markup("—")
    state = context["request"].state
    return stamp(moment, relative(moment, datetime.now(UTC), state.language), state.zone, "ago")


@jinja2.pass_context
def elapsed(context: Context, since: datetime | None) -> Markup:
    """The time since then, counting up."""
    if since is None:
        return Markup("—")
    state = context["request"].state
    text = length((datetime.now(UTC) - since).total_seconds(), state.language)
    return stamp(since, text, state.zone, "elapsed")


@jinja2.pass_context
def countdown(context: Context, until: datetime) -> Markup:
    """The time until then: `9:51` below an hour."""
    state = context["request"].state
    seconds = max(int((until - datetime.now(UTC)).total_seconds()), 0)
    text = f"{seconds // 60}:{seconds % 60:02}" if seconds < 3600 else length(seconds, state.language)
    return stamp(until, text, state.zone, "countdown")


@jinja2.pass_context
def seconds_long(context: Context, seconds: float | None) -> str:
    """A duration in seconds, in words."""
    return "—" if seconds is None else length(seconds, context["request"].state.language)
