"""Cron expressions and what is wrong with them, in words: 'en' or 'zh'.

The words are made from the values an expression stands for, not from its text: two spellings of one schedule
read alike, and what is said is what fires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import pairwise

from connecthub.cron_rule import MONTHS, WEEKDAYS, CronError, Rule, parse
from connecthub.errors import ScheduleError

_CAUSES_ZH = {
    "too_long": "超过 {limit} 个字符",
    "fields": "必须有 5 个字段，现有 {got} 个",
    "alias": "未知别名 {alias}，可用：{allowed}",
    "part": "{field}：{part} 不是标准 cron 写法",
    "above": "{field}：{value} 大于 {limit}",
    "below": "{field}：{value} 小于 {limit}",
    "backwards": "{field}：{part} 前大后小",
    "step": "{field}：步长 {value} 不在 1 到 {limit} 之间",
    "never": "永不触发：{numbers} 月没有 {day} 日",
    "zone": "未知时区 {zone}",
}
_FIELDS_ZH = {"minute": "分钟", "hour": "小时", "day": "日", "month": "月", "weekday": "星期"}
_WEEKDAYS_ZH = "日一二三四五六"
_LISTED = 6  # so many times of day are still told one by one

_Joints = tuple[str, str, str]  # between items, before the last item, within a range
_ENGLISH: _Joints = (", ", " and ", " to ")
_CHINESE: _Joints = ("、", "、", " 至 ")


def explain(error: ScheduleError, language: str) -> str:
    """What is wrong, in one line. A ScheduleError that `cron` did not raise keeps its own message."""
    if language != "zh" or not isinstance(error, CronError):
        return str(error)
    details = dict(error.details)
    if "field" in details:
        details["field"] = _FIELDS_ZH[str(details["field"])]
    return _CAUSES_ZH[error.code].format(**details)


def in_words(expression: str, language: str) -> str:
    """When `expression` fires, in one line without a full stop; raises CronError when it is not valid."""
    rule = parse(expression)
    if language == "zh":
        return _chinese(rule)
    words = _english(rule)
    return words[0].upper() + words[1:]


def _english(rule: Rule) -> str:
    days, week = _restricted(rule)
    months = _join(rule.months, _ENGLISH, lambda month: MONTHS[month - 1])
    dates = f"day {_join(days, _ENGLISH)}" + (" of the month" if len(rule.months) == 12 else "")
    weekdays = _join(week, _ENGLISH, lambda day: WEEKDAYS[day % 7])
    parts = [] if len(rule.months) == 12 else [f"in {months}"]
    if days and week:
        parts.append(f"on {dates} or on {weekdays}" if rule.either else f"on {weekdays} if it is {dates}")
    elif days or week:
        parts.append(f"on {dates}" if days else weekdays)
    times = _times_english(rule)
    daily = times.startswith("at ") and "every hour" not in times and not days and not week
    return ", ".join([*parts, f"every day {times}" if daily else times])


def _times_english(rule: Rule) -> str:
    first, last, pace = rule.times[0], rule.times[-1], _pace(rule.times)
    if pace and _all_day(rule.times, pace):
        return _every(pace)
    if pace == 60 and len(rule.hours) == 24:
        return f"every hour at minute {min(rule.minutes)}"
    if pace:
        return f"{'once an hour' if pace == 60 else _every(pace)} from {_clock(first)} to {_clock(last)}"
    if len(rule.times) <= _LISTED:
        return f"at {_and([_clock(time) for time in rule.times], _ENGLISH)}"
    hours = "every hour" if len(rule.hours) == 24 else f"hour {_join(rule.hours, _ENGLISH)}"
    minutes = _join(rule.minutes, _ENGLISH)
    return f"every minute of {hours}" if len(rule.minutes) == 60 else f"at minute {minutes} of {hours}"


def _every(pace: int) -> str:
    count, unit = (pace // 60, "hour") if pace >= 60 else (pace, "minute")
    return f"every {unit}" if count == 1 else f"every {count} {unit}s"


def _chinese(rule: Rule) -> str:
    days, week = _restricted(rule)
    months = "" if len(rule.months) == 12 else f"{_join(rule.months, _CHINESE)} 月"
    dates = f"{months or '每月'}{'的' if months and week else ''} {_join(days, _CHINESE)} 日"
    weekdays = _join(week, ("、", "、", "至"), lambda day: f"周{_WEEKDAYS_ZH[day % 7]}")
    times, listed = _times_chinese(rule)
    if days and week:
        when = f"{dates}或{weekdays}" if rule.either else f"{dates}中的{weekdays}"
    elif days:
        when = dates
    elif week:
        when = f"{months}的{weekdays}" if months else weekdays
    else:
        when = f"{months}每天" if months else "每天" if listed else ""
    return (" " if listed else "，").join(part for part in (when, times) if part)


def _times_chinese(rule: Rule) -> tuple[str, bool]:
    """The times of day, and whether they are told one by one."""
    first, last, pace = rule.times[0], rule.times[-1], _pace(rule.times)
    if pace:
        count, unit = (pace // 60, "小时") if pace >= 60 else (pace, "分钟")
        every = f"每{unit}" if count == 1 else f"每 {count} {unit}"
        if _all_day(rule.times, pace):
            return every, False
        if pace == 60 and len(rule.hours) == 24:
            return f"每小时第 {min(rule.minutes)} 分", False
        return f"{_clock(first)} 至 {_clock(last)} {every}一次", False
    if len(rule.times) <= _LISTED:
        return _and([_clock(time) for time in rule.times], _CHINESE), True
    hours = "每小时" if len(rule.hours) == 24 else f"{_join(rule.hours, _CHINESE)} 时的"
    return f"{hours}第 {_join(rule.minutes, _CHINESE)} 分" if len(
        rule.minutes
    ) < 60 else f"{hours}每分钟", False


def _restricted(rule: Rule) -> tuple[list[int], list[int]]:
    """Days of the month and weekdays (Monday 1 to Sunday 7) that matter; none where all of them do."""
    days = sorted(rule.days) if len(rule.days) < 31 else []
    week = sorted(day or 7 for day in rule.weekdays) if len(rule.weekdays) < 7 else []
    return ([], []) if rule.either and not (days and week) else (days, week)


def _pace(times: Sequence[timedelta]) -> int | None:
    """The minutes between two times of day where they are always the same, from four times on."""
    gaps = {(later - earlier) // timedelta(minutes=1) for earlier, later in pairwise(times)}
    return gaps.pop() if len(gaps) == 1 and len(times) > 3 else None


def _all_day(times: Sequence[timedelta], pace: int) -> bool:
    return not times[0] and len(times) * pace == 24 * 60


def _clock(time: timedelta) -> str:
    hours, minutes = divmod(time // timedelta(minutes=1), 60)
    return f"{hours:02}:{minutes:02}"


def _join(values: Iterable[int], words: _Joints, name: Callable[[int], str] = str) -> str:
    """Numbers as people list them: 1 to 5; 1, 3, 5 … 31; 1, 15 and 20 to 25."""
    ordered = sorted(values)
    steps = {later - earlier for earlier, later in pairwise(ordered)}
    if len(ordered) > 4 and len(steps) == 1 and steps != {1}:
        return f"{words[0].join(name(value) for value in ordered[:3])} … {name(ordered[-1])}"
    runs: list[list[int]] = []
    for value in ordered:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    items: list[str] = []
    for run in runs:
        items += [name(run[0]) + words[2] + name(run[-1])] if len(run) > 2 else map(name, run)
    return _and(items, words)


def _and(items: Sequence[str], words: _Joints) -> str:
    return words[1].join(part for part in (words[0].join(items[:-1]), *items[-1:]) if part)
