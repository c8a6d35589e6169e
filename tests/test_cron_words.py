"""What is said about expressions, right and wrong ones, in both languages."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings

from connecthub import cron, cron_rule
from connecthub.cron_words import explain, in_words
from connecthub.errors import ScheduleError
from tests.test_cron import expressions, valid

NOW = datetime(2026, 11, 23, 14, 5, tzinfo=UTC)
ALLOWED = "@hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"

WRONG = [
    ("", "must have 5 fields, got 0", "必须有 5 个字段，现有 0 个"),
    ("* * * * * *", "must have 5 fields, got 6", "必须有 5 个字段，现有 6 个"),
    ("0 " * 101, "is longer than 200 characters", "超过 200 个字符"),
    ("@reboot", f"unknown alias '@reboot': use one of {ALLOWED}", f"未知别名 '@reboot'，可用：{ALLOWED}"),
    ("60 * * * *", "minute: 60 is above 59", "分钟：60 大于 59"),
    ("0 25 * * *", "hour: 25 is above 23", "小时：25 大于 23"),
    ("0 0-24 * * *", "hour: 24 is above 23", "小时：24 大于 23"),
    ("0 0 0 * *", "day: 0 is below 1", "日：0 小于 1"),
    ("0 0 * 13 *", "month: 13 is above 12", "月：13 大于 12"),
    ("0 0 * * 8", "weekday: 8 is above 7", "星期：8 大于 7"),
    ("0 0 * * 5-1", "weekday: 5-1 runs backwards", "星期：5-1 前大后小"),
    ("0 0 * * FRI-MON", "weekday: FRI-MON runs backwards", "星期：FRI-MON 前大后小"),
    ("0 22-2 * * *", "hour: 22-2 runs backwards", "小时：22-2 前大后小"),
    ("*/61 * * * *", "minute: step 61 is not between 1 and 60", "分钟：步长 61 不在 1 到 60 之间"),
    ("*/0 * * * *", "minute: step 0 is not between 1 and 60", "分钟：步长 0 不在 1 到 60 之间"),
    ("0 0 * * */8", "weekday: step 8 is not between 1 and 7", "星期：步长 8 不在 1 到 7 之间"),
    ("R * * * *", "minute: 'R' is not standard cron", "分钟：'R' 不是标准 cron 写法"),
    ("0 H * * *", "hour: 'H' is not standard cron", "小时：'H' 不是标准 cron 写法"),
    ("H(0-9) * * * *", "minute: 'H(0-9)' is not standard cron", "分钟：'H(0-9)' 不是标准 cron 写法"),
    ("0 0 L * *", "day: 'L' is not standard cron", "日：'L' 不是标准 cron 写法"),
    ("0 0 15W * *", "day: '15W' is not standard cron", "日：'15W' 不是标准 cron 写法"),
    ("0 0 ? * *", "day: '?' is not standard cron", "日：'?' 不是标准 cron 写法"),
    ("0 0 * * 5#2", "weekday: '5#2' is not standard cron", "星期：'5#2' 不是标准 cron 写法"),
    ("0 0 * * 1/2", "weekday: '1/2' is not standard cron", "星期：'1/2' 不是标准 cron 写法"),
    ("0 0 * MON *", "month: 'MON' is not standard cron", "月：'MON' 不是标准 cron 写法"),
    ("1,,2 * * * *", "minute: '1,,2' is not standard cron", "分钟：'1,,2' 不是标准 cron 写法"),
    ("-5 * * * *", "minute: '-5' is not standard cron", "分钟：'-5' 不是标准 cron 写法"),
    ("５ * * * *", "minute: '５' is not standard cron", "分钟：'５' 不是标准 cron 写法"),
    ("0 0 30 2 *", "never fires: 30 February", "永不触发：2 月没有 30 日"),
    ("0 0 31 4,6 */2", "never fires: 31 April, June", "永不触发：4、6 月没有 31 日"),
]
WRONG_ZONES = ["Mars/Olympus", "", "America", "../../etc/passwd", "UTC\0", "x" * 300, "zone.tab"]


@pytest.mark.parametrize(("expression", "english", "chinese"), WRONG)
def test_a_wrong_expression_says_what_is_wrong(expression: str, english: str, chinese: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        cron.check(expression, "UTC", NOW)
    assert explain(caught.value, "en") == str(caught.value) == english
    assert explain(caught.value, "zh") == chinese
    with pytest.raises(ScheduleError, match=re.escape(english)):
        in_words(expression, "zh")


@pytest.mark.parametrize("zone", WRONG_ZONES)
def test_an_unknown_zone_is_named(zone: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        cron.check("* * * * *", zone, NOW)
    assert explain(caught.value, "en") == f"unknown time zone {zone!r}"
    assert explain(caught.value, "zh") == f"未知时区 {zone!r}"


def test_the_table_has_every_cause() -> None:
    codes = {"zone"}
    for expression, _, _ in WRONG:
        with pytest.raises(cron_rule.CronError) as caught:
            cron.check(expression, "UTC", NOW)
        codes.add(caught.value.code)
    assert codes == set(cron_rule._CAUSES)


def test_an_error_names_its_field() -> None:
    with pytest.raises(cron_rule.CronError) as caught:
        cron.check("0 25 * * *", "UTC", NOW)
    assert (caught.value.code, caught.value.details) == ("above", {"field": "hour", "value": 25, "limit": 23})


def test_an_error_from_elsewhere_keeps_its_words() -> None:
    assert explain(ScheduleError("something else"), "zh") == "something else"


WORDS = [
    ("* * * * *", "Every minute", "每分钟"),
    ("*/5 * * * *", "Every 5 minutes", "每 5 分钟"),
    ("5/15 * * * *", "Every 15 minutes from 00:05 to 23:50", "00:05 至 23:50 每 15 分钟一次"),
    ("*/7 * * * *", "At minute 0, 7, 14 … 56 of every hour", "每小时第 0、7、14 … 56 分"),
    ("@hourly", "Every hour", "每小时"),
    ("30 * * * *", "Every hour at minute 30", "每小时第 30 分"),
    ("0 */2 * * *", "Every 2 hours", "每 2 小时"),
    ("23 0-20/2 * * *", "Every 2 hours from 00:23 to 20:23", "00:23 至 20:23 每 2 小时一次"),
    ("@daily", "Every day at 00:00", "每天 00:00"),
    ("0 9,13,17 * * *", "Every day at 09:00, 13:00 and 17:00", "每天 09:00、13:00、17:00"),
    ("* 8 * * *", "Every minute from 08:00 to 08:59", "08:00 至 08:59 每分钟一次"),
    ("* 8,12 * * *", "Every minute of hour 8 and 12", "8、12 时的每分钟"),
    (
        "0-30/10,45 8,12-14 * * *",
        "Every day at minute 0, 10, 20, 30 and 45 of hour 8 and 12 to 14",
        "8、12 至 14 时的第 0、10、20、30、45 分",
    ),
    (
        "5 9-18 * * 1-5",
        "Monday to Friday, once an hour from 09:05 to 18:05",
        "周一至周五，09:05 至 18:05 每小时一次",
    ),
    (
        "*/15 9-18 * * MON-FRI",
        "Monday to Friday, every 15 minutes from 09:00 to 18:45",
        "周一至周五，09:00 至 18:45 每 15 分钟一次",
    ),
    ("0 9 * * 1", "Monday, at 09:00", "周一 09:00"),
    (
        "0 0 * * 1,3,5-7",
        "Monday, Wednesday and Friday to Sunday, at 00:00",
        "周一、周三、周五至周日 00:00",
    ),
    ("0 9 * * 6,0", "Saturday and Sunday, at 09:00", "周六、周日 09:00"),
    ("0 0 1,15 * *", "On day 1 and 15 of the month, at 00:00", "每月 1、15 日 00:00"),
    ("0 0 1 1 *", "In January, on day 1, at 00:00", "1 月 1 日 00:00"),
    (
        "0 8 1 */3 *",
        "In January, April, July and October, on day 1, at 08:00",
        "1、4、7、10 月 1 日 08:00",
    ),
    ("0 3 * 1-6 *", "In January to June, every day at 03:00", "1 至 6 月每天 03:00"),
    ("0 8 * 6 MON", "In June, Monday, at 08:00", "6 月的周一 08:00"),
    ("0 0 13 * 5", "On day 13 of the month or on Friday, at 00:00", "每月 13 日或周五 00:00"),
    ("59 23 31 12 5", "In December, on day 31 or on Friday, at 23:59", "12 月的 31 日或周五 23:59"),
    (
        "0 0 */2 * 1",
        "On Monday if it is day 1, 3, 5 … 31 of the month, at 00:00",
        "每月 1、3、5 … 31 日中的周一 00:00",
    ),
    ("0 0 5 * 0-6", "Every day at 00:00", "每天 00:00"),
]


@pytest.mark.parametrize(("expression", "english", "chinese"), WORDS)
def test_words(expression: str, english: str, chinese: str) -> None:
    assert in_words(expression, "en") == english
    assert in_words(expression, "zh") == chinese


@settings(derandomize=True, max_examples=300)
@given(expressions)
def test_every_valid_expression_has_words(expression: str) -> None:
    if valid(expression):
        english, chinese = in_words(expression, "en"), in_words(expression, "zh")
        assert english.isascii() or "…" in english
        assert not re.search("[A-Za-z]", chinese)
        for words in (english, chinese):
            assert words == words.strip()
            assert not re.search(r" {2}|、、|, ,|[,，、] ?$|^[,，、]", words), words
