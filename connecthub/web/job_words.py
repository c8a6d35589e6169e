"""Sentences about a Job: its schedule, its policies, and why it did not run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from jinja2.runtime import Context

from connecthub.cron_words import explain, in_words
from connecthub.definitions.differences import shown_param
from connecthub.definitions.fields import bound
from connecthub.errors import ScheduleError
from connecthub.web.job_schedule import wrong_schedule
from connecthub.web.job_why import Answer
from connecthub.web.times import length
from connecthub.words import say, say_reason


def install(env: jinja2.Environment) -> None:
    """Add these functions and filters to the templates."""
    env.globals.update(
        words_of=words_of, span_of=_span, policies=_policies, why=_why, wrong_schedule_of=_wrong_schedule
    )
    env.filters.update(parsed=json.loads, shown_param=shown_param, bound=bound)


def words_of(expression: str, language: str) -> str:
    """A cron expression in words, empty for one that is not valid."""
    try:
        return in_words(expression, language)
    except ScheduleError:
        return ""


def span(language: str, seconds: float) -> str:
    """A stretch of time; of whole seconds, minutes and hours, which people set, nothing but those is said."""
    if seconds < 60 and seconds == round(seconds):
        return say(language, "seconds", n=round(seconds))
    if seconds < 3600 and not seconds % 60:
        return say(language, "whole_minutes", m=round(seconds) // 60)
    if seconds < 86400 and not seconds % 3600:
        return say(language, "whole_hours", h=round(seconds) // 3600)
    return length(seconds, language)


def policies(job: Mapping[str, Any], language: str) -> list[str]:
    """What happens when something goes wrong, a sentence for each policy."""
    lines = [
        say(language, f"policy.misfire.{job['misfire']}", window=span(language, job["misfire_window_s"])),
        say(language, f"policy.overlap.{job['overlap']}"),
    ]
    if job["timeout_s"] is None:
        lines.append(say(language, "policy.timeout_default"))
    elif job["timeout_s"]:
        lines.append(say(language, "policy.timeout", span=span(language, job["timeout_s"])))
    else:
        lines.append(say(language, "policy.no_timeout"))
    if job["max_attempts"] > 1:
        delays = job["retry_delays"][: job["max_attempts"] - 1]
        told = say(language, "comma").join(span(language, delay) for delay in delays) or span(language, 0)
        lines.append(say(language, "policy.attempts", n=job["max_attempts"], delays=told))
    else:
        lines.append(say(language, "policy.one_attempt"))
    if job["rerun_lost"]:
        lines.append(say(language, "policy.rerun_lost"))
    if job["priority"]:
        lines.append(say(language, "policy.priority", n=job["priority"]))
    return lines


def why(answer: Answer, zone: str, language: str) -> str:
    """The sentence of an answer, its times in `zone`."""
    info = ZoneInfo(zone)
    values: dict[str, object] = {}
    for name, value in answer.values.items():
        if isinstance(value, datetime):
            values[name] = f"{value.astimezone(info):%Y-%m-%d %H:%M}"
        elif isinstance(value, ScheduleError):
            values[name] = explain(value, language)
        elif value is None:
            values[name] = "—"
        else:
            values[name] = say_reason(language, value) if name == "reason" else value
    return say(language, f"why.{answer.key}", **values)


@jinja2.pass_context
def _span(context: Context, seconds: float | None) -> str:
    return "—" if seconds is None else span(context["request"].state.language, seconds)


@jinja2.pass_context
def _policies(context: Context, job: Mapping[str, Any]) -> list[str]:
    return policies(job, context["request"].state.language)


@jinja2.pass_context
def _wrong_schedule(context: Context, job: Mapping[str, Any]) -> str:
    return wrong_schedule(job, context["request"].state.language)


@jinja2.pass_context
def _why(context: Context, answer: Answer, zone: str) -> str:
    return why(answer, zone, context["request"].state.language)
