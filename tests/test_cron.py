"""When expressions fire: held against cronsim, croniter, a walk over every minute, and cases written by hand.

cronsim agrees with the design except for wild expressions in Australia/Lord_Howe: it walks by whole hours, so
that after a change of half an hour it skips minutes. The walk over every minute covers that zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import process_time
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from connecthub import cron
from connecthub.cron_rule import ALIASES, CronError, Rule, parse

ZONES = [
    "UTC",
    "Asia/Shanghai",
    "Asia/Kathmandu",
    "America/New_York",
    "America/Sao_Paulo",  # until 2018 its gap was at midnight
    "America/St_Johns",  # until 2011 it changed at 00:01
    "Africa/Casablanca",  # four changes a year around Ramadan
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",  # without a 30 December 2011
]
# Moments about which clocks change by 60 or 30 minutes, or by a day, forwards and back.
CHANGES = [
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 2, 18, 2, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Pacific/Kwajalein", datetime(1969, 9, 30, 13, tzinfo=UTC)),  # 23 hours happened twice
]
FIELDS = [
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, ("JAN", "Jun", "dec")),
    (0, 7, ("SUN", "Wed", "fri")),
]


@st.composite
def fields(draw: st.DrawFn, low: int, high: int, names: tuple[str, ...]) -> str:
    value = st.integers(low, high)
    step = st.integers(1, high - low)
    span = (
        st.tuples(value, value).map(sorted).filter(lambda ends: ends[0] < ends[1]).map("{0[0]}-{0[1]}".format)
    )
    forms = [
        st.just("*"),
        step.map("*/{}".format),
        value.map(str),
        span,
        st.tuples(span, step).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    ]
    if names:
        forms.append(st.sampled_from(names))
    return ",".join(draw(st.lists(st.one_of(forms), min_size=1, max_size=3)))


expressions = st.tuples(*(fields(*field) for field in FIELDS)).map(" ".join)
moments = st.datetimes(datetime(1972, 2, 1), datetime(2040, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


def valid(expression: str) -> Rule | None:
    try:
        return parse(expression)
    except CronError as error:
        assert error.code == "never", error
        return None


def walk(expression: str, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """The rules of the design to the letter: look at the clock each minute."""
    rule, info = parse(expression), ZoneInfo(zone)

    def due(wall: datetime) -> bool:
        in_days, in_week = wall.day in rule.days, wall.isoweekday() % 7 in rule.weekdays
        day = (in_days or in_week) if rule.either else (in_days and in_week)
        return day and wall.month in rule.months and wall.hour in rule.hours and wall.minute in rule.minutes

    minute = timedelta(minutes=1)
    instant = after - timedelta(days=2)
    shown = instant.astimezone(info).replace(tzinfo=None)  # the latest wall so far
    while (instant := instant + minute) <= until:
        wall = instant.astimezone(info).replace(tzinfo=None)
        passed = [wall] if rule.wild else [shown + minute * n for n in range(1, (wall - shown) // minute + 1)]
        shown = max(shown, wall)
        if instant > after and any(due(wall) for wall in passed):
            yield instant


def local(fires: list[datetime], zone: str) -> list[str]:
    return [fire.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for fire in fires]


@settings(derandomize=True, max_examples=400)
@given(expressions, st.sampled_from(ZONES), moments)
def test_fires_as_cronsim_does(expression: str, zone: str, after: datetime) -> None:
    if valid(expression):
        expected = islice(CronSim(expression, after.astimezone(ZoneInfo(zone))), 60)
        assert cron.next_fires(expression, zone, after, 60) == [fire.astimezone(UTC) for fire in expected]


@settings(derandomize=True, max_examples=150)
@given(expressions, moments)
def test_fires_as_croniter_does(expression: str, after: datetime) -> None:
    assume(",*" not in expression)  # croniter sorts such a list, and takes it for one that begins with `*`
    if valid(expression):
        oracle = croniter(expression, after, ret_type=datetime, implement_cron_bug=True)
        assert cron.next_fires(expression, "UTC", after, 5) == [oracle.get_next() for _ in range(5)]


@settings(derandomize=True, max_examples=300)
@given(fields(0, 59, ()), fields(0, 3, ()), st.sampled_from(CHANGES), st.integers(-26, 3), st.integers(1, 36))
def test_fires_as_the_design_says_around_clock_changes(
    minutes: str, hours: str, change: tuple[str, datetime], start: int, length: int
) -> None:
    expression = f"{minutes} {hours} * * *"
    zone, moment = change
    after = moment + timedelta(hours=start)
    until = after + timedelta(hours=length)
    expected = list(walk(expression, zone, after, until))
    assert cron.fires_between(expression, zone, after, until, 10_000) == expected
    assert cron.span(expression, zone, after, until, 7) == cron.Span(
        len(expected), expected[0] if expected else None, tuple(expected[-7:])
    )
    if expected:
        assert cron.next_fire(expression, zone, after) == expected[0]


@settings(derandomize=True, max_examples=100)
@given(expressions, st.sampled_from(ZONES), moments, st.integers(0, 400), st.integers(1, 100))
def test_a_span_is_what_one_by_one_gives(
    expression: str, zone: str, after: datetime, days: int, keep: int
) -> None:
    if valid(expression):
        until = after + timedelta(days=days, minutes=7)
        fires = cron.fires_between(expression, zone, after, until, 1_000_000)
        found = cron.span(expression, zone, after, until, keep)
        assert found == cron.Span(len(fires), fires[0] if fires else None, tuple(fires[-keep:]))


BY_HAND = [
    # New York, 8 March 2026: 02:00 -0500 becomes 03:00 -0400.
    ("30 2 * * *", "America/New_York", "2026-03-08", ["03-08 03:00-0400"]),
    ("0,30 2 * * *", "America/New_York", "2026-03-08", ["03-08 03:00-0400"]),
    ("30 2,3 * * *", "America/New_York", "2026-03-08", ["03-08 03:00-0400", "03-08 03:30-0400"]),
    ("0 2,3 * * *", "America/New_York", "2026-03-08", ["03-08 03:00-0400"]),
    ("*/30 2 * * *", "America/New_York", "2026-03-08", []),
    # New York, 1 November 2026: 02:00 -0400 becomes 01:00 -0500.
    ("30 1 * * *", "America/New_York", "2026-11-01", ["11-01 01:30-0400"]),
    ("30 */23 * * *", "America/New_York", "2026-11-01", ["11-01 00:30-0400", "11-01 23:30-0500"]),
    (
        "30 *,1 1 11 *",
        "America/New_York",
        "2026-11-01",
        [f"11-01 {h:02}:30-0400" for h in (0, 1)] + [f"11-01 {h:02}:30-0500" for h in range(1, 24)],
    ),
    ("0 1,2 * * *", "America/New_York", "2026-11-01", ["11-01 01:00-0400", "11-01 02:00-0500"]),
    (
        "*/30 1 * * *",
        "America/New_York",
        "2026-11-01",
        ["11-01 01:00-0400", "11-01 01:30-0400", "11-01 01:00-0500", "11-01 01:30-0500"],
    ),
    # Berlin, 29 March 2026: 02:00 +0100 becomes 03:00 +0200.
    ("15,45 2 * * *", "Europe/Berlin", "2026-03-29", ["03-29 03:00+0200"]),
    ("*/20 2,3 * * *", "Europe/Berlin", "2026-03-29", [f"03-29 03:{m}+0200" for m in ("00", "20", "40")]),
    # Berlin, 25 October 2026: 03:00 +0200 becomes 02:00 +0100.
    ("0 2 * * *", "Europe/Berlin", "2026-10-25", ["10-25 02:00+0200"]),
    ("59 2 * * *", "Europe/Berlin", "2026-10-25", ["10-25 02:59+0200"]),
    (
        "*/40 2 * * *",
        "Europe/Berlin",
        "2026-10-25",
        [f"10-25 02:{t}" for t in ("00+0200", "40+0200", "00+0100", "40+0100")],
    ),
    # Lord Howe, 4 October 2026: 02:00 +1030 becomes 02:30 +1100.
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["10-04 02:30+1100"]),
    ("15,30 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["10-04 02:30+1100"]),
    ("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["10-04 02:30+1100", "10-04 02:45+1100"]),
    # Lord Howe, 5 April 2026: 02:00 +1100 becomes 01:30 +1030.
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", ["04-05 01:45+1100"]),
    (
        "*/45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-05",
        ["04-05 01:00+1100", "04-05 01:45+1100", "04-05 01:45+1030"],
    ),
    # São Paulo, 4 November 2018: there is no midnight.
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-04", ["11-04 01:00-0200"]),
]


@pytest.mark.parametrize(("expression", "zone", "day", "expected"), BY_HAND)
def test_clock_changes_by_hand(expression: str, zone: str, day: str, expected: list[str]) -> None:
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    before = midnight.astimezone(UTC) - timedelta(minutes=1)
    after = (midnight + timedelta(days=1)).astimezone(UTC) - timedelta(minutes=1)
    assert local(cron.fires_between(expression, zone, before, after, 100), zone) == expected


def test_a_day_that_does_not_exist_fires_at_its_end() -> None:
    fires = cron.next_fires("0 9 * * *", "Pacific/Apia", datetime(2011, 12, 29, 0, tzinfo=UTC), 4)
    assert local(fires, "Pacific/Apia") == [
        "12-29 09:00-1000",
        "12-31 00:00+1400",
        "12-31 09:00+1400",
        "01-01 09:00+1400",
    ]


def test_the_second_half_of_an_overlap_is_over_for_a_fixed_time() -> None:
    second = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)  # 01:10 -0500
    assert local([cron.next_fire("50 1 * * *", "America/New_York", second)], "America/New_York") == [
        "11-02 01:50-0500"
    ]


def test_a_moved_fire_names_the_time_that_does_not_exist() -> None:
    after = datetime(2026, 3, 28, tzinfo=UTC)
    for expression, expected in [
        ("30 2 * * *", [None, "02:30", None]),
        ("0 2,3 * * *", [None, None, "02:00"]),
    ]:
        fires = cron.next_fires(expression, "Europe/Berlin", after, 3)
        marked = cron.moved(expression, "Europe/Berlin", fires)
        assert [fire.at for fire in marked] == fires
        assert [fire.moved_from for fire in marked] == expected
    gap_end = datetime(2026, 3, 29, 1, tzinfo=UTC)  # an hourly Job has lost nothing
    assert cron.moved("0 * * * *", "Europe/Berlin", [gap_end]) == [cron.Fire(gap_end, None)]


def test_a_late_second_still_gets_the_next_minute() -> None:
    late = datetime(2026, 1, 1, 0, 0, 59, 999_999, tzinfo=UTC)
    assert cron.next_fire("* * * * *", "UTC", late) == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    due = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert cron.next_fire("* * * * *", "UTC", due) == due + timedelta(minutes=1)


def test_an_offset_with_seconds() -> None:
    # Monrovia was 44 min 30 s behind until 1972: its minutes began at half of ours.
    zone, after = "Africa/Monrovia", datetime(1971, 6, 1, 12, 0, 0, tzinfo=UTC)
    first, second = cron.next_fires("* * * * *", zone, after, 2)
    assert (first, second - first) == (after + timedelta(seconds=30), timedelta(minutes=1))
    assert cron.next_fire("* * * * *", zone, after + timedelta(seconds=45)) == second
    assert cron.next_fire("* * * * *", zone, after + timedelta(seconds=15)) == first


def test_the_rarest_expression_fires() -> None:
    # A Sunday on 29 February, across 2100, which has no such day.
    after = datetime(2088, 3, 1, tzinfo=UTC)
    assert cron.next_fire("0 0 29 2 */7", "UTC", after) == datetime(2128, 2, 29, tzinfo=UTC)


def test_next_fire_and_span_are_remembered() -> None:
    expression, zone, after = "7 7 7 7 *", "Asia/Shanghai", datetime(2026, 1, 1, tzinfo=UTC)
    cron.next_fire(expression, zone, after)
    assert cron.next_fire(expression, zone, after) == cron.next_fire(
        expression, zone, after + timedelta(seconds=59)
    )
    before = cron._next_after.cache_info()
    cron.next_fire(expression, zone, after + timedelta(seconds=30))
    assert cron._next_after.cache_info().hits == before.hits + 1


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Australia/Lord_Howe"])
def test_a_missed_year_of_minutes_is_cheap(zone: str) -> None:
    until = datetime(2026, 11, 23, 14, 5, tzinfo=UTC)
    started = process_time()
    missed = cron.span("* * * * *", zone, until - timedelta(days=365), until)
    assert process_time() - started < 0.1  # under 1 ms; one by one it takes a second
    assert (missed.count, len(missed.newest), missed.newest[-1]) == (365 * 24 * 60, 100, until)


def test_an_empty_span() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for until in (noon, noon - timedelta(hours=5), noon - timedelta(days=5), noon + timedelta(minutes=4)):
        assert cron.span("*/5 * * * *", "UTC", noon, until) == cron.Span(0, None, ())


def test_naive_times_are_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        cron.next_fire("* * * * *", "UTC", datetime(2026, 1, 1))


SAME = [
    *ALIASES.items(),
    ("@Daily", "0 0 * * *"),
    (" 0\t0  * * * ", "0 0 * * *"),
    ("0 5-5 7-7/3 * *", "0 5 7 * *"),
    ("0 0 * jan,Feb,DEC mon-FRI", "0 0 * 1,2,12 1-5"),
    ("0 0 * * 7", "0 0 * * 0"),
    ("0 0 * * 5-7", "0 0 * * 0,5,6"),
    ("0 0 * * SAT-SUN", "0 0 * * 0,6"),
    ("0 0 * * SUN-TUE", "0 0 * * 0-2"),
    ("5/20 05 */31 * *", "5,25,45 5 */31 * *"),
    ("*/60 */24 * * *", "*/60 */24 * * *"),
    ("*,5 * * * *", "* * * * *"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_schedule(one: str, other: str) -> None:
    def meaning(rule: Rule) -> tuple[object, ...]:
        return (rule.times, rule.days, rule.months, rule.weekdays, rule.either, rule.wild)

    assert meaning(parse(one)) == meaning(parse(other))


def test_a_day_that_no_month_has_or_a_weekday() -> None:
    # Vixie cron fires on either, so that this is every Monday of February.
    fires = cron.next_fires("0 0 30 2 MON", "UTC", datetime(2026, 1, 1, tzinfo=UTC), 4)
    assert [fire.day for fire in fires] == [2, 9, 16, 23]
