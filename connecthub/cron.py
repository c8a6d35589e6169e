"""When a cron expression fires. Pure: every moment is an argument.

A wall is what a clock on the wall shows: a naive local time. Between two clock changes a zone keeps one UTC
offset, so time is cut into stretches of one offset; within a stretch the fire times are the walls that match,
less the offset. What happens at a change follows from one rule for each of the two kinds of expression:

    fixed   fires at the first instant at which the clock shows the wall or has passed it: a wall inside a gap
            fires once, at the gap's end; a wall that happens twice fires once, at the first
    wild    (minute or hour begins with `*`) fires at each instant at which the clock shows the wall

What an expression may say is in `cron_rule`, words for people are in `cron_words`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple
from zoneinfo import ZoneInfo

from connecthub.cron_rule import CronError, Rule, parse

_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
# Two offsets of a zone differ by less than two days: longer ago no clock was ahead of what it shows now.
_LOOK_BACK = 2 * _DAY
# The shortest time between two changes of any zone on record is just under seven days.
_PROBE = 3 * _DAY

_Stretch = tuple[datetime, datetime, timedelta]  # [begin, end) in UTC, the offset


def check(expression: str, zone: str, now: datetime) -> None:
    """Raise CronError unless `expression` is valid, `zone` is known and there is a fire time after `now`."""
    next_fire(expression, zone, now)


def next_fire(expression: str, zone: str, after: datetime) -> datetime:
    """The first fire time strictly after `after` (aware), in UTC; raises CronError."""
    start = _naive_utc(after)
    fire = _next_after(expression, zone, start.replace(second=0, microsecond=0))
    if fire <= start:  # an offset of the past with odd seconds
        fire = next(_fires(parse(expression), _zone(zone), start, datetime.max))
    return fire.replace(tzinfo=UTC)


def next_fires(expression: str, zone: str, after: datetime, count: int) -> list[datetime]:
    """The first `count` fire times strictly after `after` (aware), in UTC, ascending; raises CronError."""
    fires = _fires(parse(expression), _zone(zone), _naive_utc(after), datetime.max)
    return [fire.replace(tzinfo=UTC) for fire in islice(fires, count)]


def fires_between(expression: str, zone: str, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """The first `limit` fire times in (after, until] (both aware), in UTC, ascending; raises CronError."""
    fires = _fires(parse(expression), _zone(zone), _naive_utc(after), _naive_utc(until))
    return [fire.replace(tzinfo=UTC) for fire in islice(fires, limit)]


@dataclass(frozen=True)
class Span:
    """Fire times of a stretch of time, in UTC: how many, the first, and the newest in ascending order."""

    count: int
    first: datetime | None
    newest: tuple[datetime, ...]


@lru_cache(maxsize=512)
def span(expression: str, zone: str, after: datetime, until: datetime, keep: int = 100) -> Span:
    """The fire times in (after, until] (both aware), of which `newest` has `keep`; raises CronError.

    Costs by the day, not by the fire time: a Job of every minute may have missed a year of them.
    """
    rule, info, start, end = parse(expression), _zone(zone), _naive_utc(after), _naive_utc(until)
    pieces = _pieces(rule, info, start, end)
    count = sum(bool(gap) + rule.count(low, high) for gap, low, high, _ in pieces)
    newest: list[datetime] = []
    width = timedelta(hours=1)
    while len(newest) < min(keep, count):
        newest = list(_fires(rule, info, max(start, end - width), end))
        width *= 4
    first = next_fire(expression, zone, after) if count else None
    return Span(count, first, tuple(fire.replace(tzinfo=UTC) for fire in newest[-keep:]))


@dataclass(frozen=True)
class Fire:
    """A fire time. `moved_from`: the local time (HH:MM) that a clock change leaves out, if it is for one."""

    at: datetime
    moved_from: str | None


def moved(expression: str, zone: str, fires: Iterable[datetime]) -> list[Fire]:
    """Say which of `fires` (aware fire times of `expression`) a clock change has moved; raises CronError."""
    rule, info = parse(expression), _zone(zone)
    return [Fire(at, _moved_from(rule, info, _naive_utc(at))) for at in fires]


def _moved_from(rule: Rule, zone: ZoneInfo, at: datetime) -> str | None:
    gap = (at + _offset(zone, at - _SECOND), at + _offset(zone, at))
    wall = None if rule.wild else next(rule.walls(*gap), None)
    return f"{wall:%H:%M}" if wall else None


@lru_cache(maxsize=8192)
def _next_after(expression: str, zone: str, minute: datetime) -> datetime:
    return next(_fires(parse(expression), _zone(zone), minute, datetime.max))


# From here on instants are naive UTC, so that they and walls differ by an offset and nothing else.


def _naive_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a naive time cannot be told apart from local time")
    return moment.astimezone(UTC).replace(tzinfo=None)


def _fires(rule: Rule, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
    """The fire times in (after, until], ascending."""
    for gap, low, high, offset in _pieces(rule, zone, after, until):
        if gap:
            yield gap
        for wall in rule.walls(low, high):
            yield wall - offset


class _Piece(NamedTuple):
    """A span's part in one stretch: walls in [low, high) fire, and before them `gap` for those left out."""

    gap: datetime | None
    low: datetime
    high: datetime
    offset: timedelta


def _pieces(rule: Rule, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[_Piece]:
    # Clocks show whole seconds, and so do fire times.
    start = after.replace(microsecond=0) + _SECOND
    end = min(until, datetime.max - _DAY).replace(microsecond=0) + _SECOND
    reached = datetime.min  # every wall before this one has been shown or left out
    before, within = _stretches(zone, start - _LOOK_BACK, start), _stretches(zone, start, end)
    for begin, finish, offset in chain(before, within):
        low, high = begin + offset, finish + offset
        if begin >= start:
            gap = None
            if not rule.wild:
                gap = begin if next(rule.walls(reached, low), None) else None
                low = low + _SECOND if gap else max(low, reached)
            yield _Piece(gap, low, high, offset)
        reached = max(reached, high)


def _stretches(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[_Stretch]:
    """Cut [start, end) so that the zone keeps one offset in each part; a year's turn may cut as well."""
    for year in range(start.year, end.year + 1):
        for begin, finish, offset in _year(zone, year):
            begin, finish = max(begin, start), min(finish, end)
            if begin < finish:
                yield begin, finish, offset


@lru_cache(maxsize=4096)
def _year(zone: ZoneInfo, year: int) -> tuple[_Stretch, ...]:
    stretches = []
    begin = probe = datetime(year, 1, 1)
    end = datetime(year + 1, 1, 1)
    offset = _offset(zone, begin)
    while probe < end:
        before, probe = probe, min(probe + _PROBE, end)
        if _offset(zone, probe) != offset:
            change = _change(zone, before, probe)
            stretches.append((begin, change, offset))
            begin, offset = change, _offset(zone, change)
    return (*stretches, (begin, end, offset))


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second of the new offset; `before` has the old one and `after` the new one."""
    old = _offset(zone, before)
    while after - before > _SECOND:
        middle = before + _SECOND * ((after - before) // _SECOND // 2)
        if _offset(zone, middle) == old:
            before = middle
        else:
            after = middle
    return after


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return zone.fromutc(instant.replace(tzinfo=zone)).replace(tzinfo=None) - instant


@lru_cache(maxsize=1024)
def _zone(key: str) -> ZoneInfo:
    try:
        return ZoneInfo(key)
    except (KeyError, ValueError, OSError):  # unknown, not a name at all, a folder of names
        raise CronError("zone", zone=repr(key)) from None
