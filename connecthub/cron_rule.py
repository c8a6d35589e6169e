"""What a cron expression says: which ones are allowed, and the sets of values they stand for.

Standard 5-field cron as Vixie cron reads it, and the aliases @hourly to @yearly. What croniter accepts beyond
that (seconds, years, random values, L, W, #, ranges that run backwards) is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from croniter import croniter

from connecthub.errors import ScheduleError

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
WEEKDAYS = tuple("Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split())

_MAX_LENGTH = 200
_CAUSES = {
    "too_long": "is longer than {limit} characters",
    "fields": "must have 5 fields, got {got}",
    "alias": "unknown alias {alias}: use one of {allowed}",
    "part": "{field}: {part} is not standard cron",
    "above": "{field}: {value} is above {limit}",
    "below": "{field}: {value} is below {limit}",
    "backwards": "{field}: {part} runs backwards",
    "step": "{field}: step {value} is not between 1 and {limit}",
    "never": "never fires: {day} {months}",
    "zone": "unknown time zone {zone}",
}


class CronError(ScheduleError):
    """A cron expression or a time zone cannot be used; `cron_words.explain` says so in Chinese.

    `code` is the cause, a key of `_CAUSES`, and `details` holds its values. A `field` among them is the field
    at fault: minute, hour, day, month or weekday.
    """

    def __init__(self, code: str, **details: str | int) -> None:
        super().__init__(_CAUSES[code].format(**details))
        self.code = code
        self.details = details


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    size: int  # how many different values: of a week's 0 to 7 both ends are Sunday
    names: tuple[str, ...] = ()

    def canonical(self, text: str) -> str:
        """`text` as croniter reads it without surprises: numbers, closed ranges, no range of one value."""
        return ",".join(self._part(part or text) for part in text.split(","))

    def _part(self, part: str) -> str:
        match = _PART.fullmatch(part)
        if match is None:
            raise self._not_standard(part)
        first, last, step = match.groups()
        span = "*"
        if step and not 1 <= int(step) <= self.size:
            raise CronError("step", field=self.name, value=int(step), limit=self.size)
        if first:
            low = self._value(first)
            high = self._end(low, last, step, part)
            if high < low:
                raise CronError("backwards", field=self.name, part=part)
            if high == low:  # croniter reads 5-5 as the whole cycle
                return str(low)
            span = f"{low}-{high}"
        return f"{span}/{int(step)}" if step else span

    def _end(self, low: int, last: str | None, step: str | None, part: str) -> int:
        """The last value of `low`, `low-last` or `low/step`."""
        if last:
            value = self._value(last)
            return 7 if self.name == "weekday" and value == 0 < low else value  # SAT-SUN
        if not step:
            return low
        if self.name == "weekday":  # some readers let 1/2 end on Saturday, others on Sunday
            raise self._not_standard(part)
        return self.high

    def _value(self, text: str) -> int:
        if text.upper() in self.names:
            return self.names.index(text.upper()) + self.low
        if not text.isdigit():
            raise self._not_standard(text)
        value = int(text)
        if value > self.high:
            raise CronError("above", field=self.name, value=value, limit=self.high)
        if value < self.low:
            raise CronError("below", field=self.name, value=value, limit=self.low)
        return value

    def _not_standard(self, part: str) -> CronError:
        return CronError("part", field=self.name, part=repr(part))


_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_FIELDS = (
    _Field("minute", 0, 59, 60),
    _Field("hour", 0, 23, 24),
    _Field("day", 1, 31, 31),
    _Field("month", 1, 12, 12, tuple(name[:3].upper() for name in MONTHS)),
    _Field("weekday", 0, 7, 7, tuple(name[:3].upper() for name in WEEKDAYS)),
)


@dataclass(frozen=True, eq=False, slots=True)
class Rule:
    """A valid expression as sets of values; weekday 0 is Sunday.

    `either`: a day matches by day of month or by weekday; otherwise (one of the two begins with `*`) it must
    match both. `wild`: minute or hour begins with `*`. `times`: the times of day, ascending.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    wild: bool
    times: tuple[timedelta, ...]

    def dates(self, first: date, last: date) -> Iterator[datetime]:
        """The midnights of the matching days from `first` to `last`, both included."""
        year, month = first.year, first.month
        while (year, month) <= (last.year, last.month):
            if month in self.months:
                before, length = monthrange(year, month)
                for day in range(1, length + 1):
                    in_days, in_week = day in self.days, (before + day) % 7 in self.weekdays
                    matches = (in_days or in_week) if self.either else (in_days and in_week)
                    if matches and first <= date(year, month, day) <= last:
                        yield datetime(year, month, day)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def walls(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """The matching walls in [low, high), ascending."""
        for midnight in self.dates(low.date(), high.date()):
            for index in range(bisect_left(self.times, low - midnight), len(self.times)):
                wall = midnight + self.times[index]
                if wall >= high:
                    return
                yield wall

    def count(self, low: datetime, high: datetime) -> int:
        """How many walls match in [low, high)."""
        times = self.times
        return sum(
            bisect_left(times, high - midnight) - bisect_left(times, low - midnight)
            for midnight in self.dates(low.date(), high.date())
        )


# Shared by all rules: a hub may hold thousands.
_EVERYTHING = [frozenset(range(field.low, field.low + field.size)) for field in _FIELDS]
_TIMES = [timedelta(minutes=minute) for minute in range(24 * 60)]


@lru_cache(maxsize=8192)
def parse(expression: str) -> Rule:
    """Read a standard 5-field expression or an alias; raises CronError when it is neither, or never fires."""
    texts = _split(expression)
    canonical = [field.canonical(text) for field, text in zip(_FIELDS, texts, strict=True)]
    expanded, _ = croniter.expand(" ".join(canonical))
    minutes, hours, days, months, weekdays = (
        everything if "*" in values else frozenset(map(int, values))
        for everything, values in zip(_EVERYTHING, expanded, strict=True)
    )
    starred = [text.startswith("*") for text in texts]
    either = not (starred[2] or starred[4])
    # Nothing else keeps an expression from firing: 29 February meets each weekday within 40 years.
    if not either and all(min(days) > monthrange(2000, month)[1] for month in months):
        raise CronError(
            "never",
            day=min(days),
            months=", ".join(MONTHS[month - 1] for month in sorted(months)),
            numbers="、".join(str(month) for month in sorted(months)),
        )
    times = tuple(_TIMES[hour * 60 + minute] for hour in sorted(hours) for minute in sorted(minutes))
    return Rule(minutes, hours, days, months, weekdays, either, starred[0] or starred[1], times)


def _split(expression: str) -> list[str]:
    if len(expression) > _MAX_LENGTH:
        raise CronError("too_long", limit=_MAX_LENGTH)
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in ALIASES:
            raise CronError("alias", alias=repr(text), allowed=", ".join(ALIASES))
        text = ALIASES[text.lower()]
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise CronError("fields", got=len(fields))
    return fields
