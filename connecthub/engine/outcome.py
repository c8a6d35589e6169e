"""Pure: what a run's code returned or raised, and what was asked of it, decide what is stored."""

from __future__ import annotations

import asyncio
import json
import math
import re
from itertools import takewhile
from typing import Any, NamedTuple

from connecthub.engine import traces
from connecthub.run_log import TRUNCATED
from connecthub.security.redaction import Masker

MESSAGE_CHARS = 50_000
RESULT_BYTES = 1024 * 1024
_HEAD_CHARS = 10_000
_MANY = 100_000
_NESTS = (dict, list, tuple)  # `dict | list | tuple` would be put together anew for each value
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # the escape of a NUL, and not the text \\u0000
# A person has to mend these first: another attempt would fail the same way.
NEVER_RETRIED = frozenset({"bad_handler", "bad_secret"})


class Returned(NamedTuple):
    """How foreign code ended: with a value (a Result, where it is a plugin's), or with an exception."""

    value: Any = None
    error: BaseException | None = None


class Result(NamedTuple):
    """What a plugin returned, masked, as the text of a jsonb column, and its own message."""

    json: str | None
    message: str


class Outcome(NamedTuple):
    """What to store of a run. JSON fields are text; `may_retry`: the reason allows another attempt."""

    status: str
    reason: str | None = None
    message: str | None = None
    traceback: str | None = None
    result: str | None = None
    detail: str | None = None
    may_retry: bool = False


class BadResult(ValueError):
    """What the plugin returned cannot be stored as JSON."""


class PluginError(Exception):
    """What foreign code raised, in words that were made, masked and cut where it ran.

    Its own `__str__` and traceback are foreign code as well: they may take for ever or be of any size.
    """

    def __init__(self, line: str, trace: str | None, *, is_cancelled: bool = False) -> None:
        super().__init__(line)
        self.line = line
        self.trace = trace
        self.is_cancelled = is_cancelled


def describe(error: BaseException, masker: Masker) -> PluginError:
    """`error` in words; call it in the thread that it was raised in. Never raises."""
    try:
        trace = traces.text_of(error)
    except BaseException:
        trace = one_line(error, masker)
    head, tail = masker.ends(trace, 0, MESSAGE_CHARS)
    return PluginError(
        _cut(one_line(error, masker), masker),
        clean(head if tail is None else tail)[-MESSAGE_CHARS:],
        is_cancelled=isinstance(error, asyncio.CancelledError),
    )


def decide(returned: Returned | None, stop: str | None, masker: Masker, warnings: list[str]) -> Outcome:
    """The outcome of a run whose plugin was called.

    `returned` is None where the code is still going although it was asked to stop. `stop` is why it was
    asked: `timeout`, `cancelled`, `shutdown`, `lost` (the lease was about to end), or None where nobody did.
    """
    raised = returned.error if returned else None
    error = raised if raised is None or isinstance(raised, PluginError) else describe(raised, masker)
    result = returned.value if returned and isinstance(returned.value, Result) else Result(None, "")
    if stop in ("cancelled", "shutdown"):
        status, reason = "CANCELLED", stop
    elif stop == "lost":
        status, reason = "LOST", None
    elif stop == "timeout":
        status, reason = "FAILURE", "timeout"
    elif error is not None:
        status, reason = "FAILURE", "exception"
    else:
        status, reason = "SUCCESS", None
    first = error.line if error is not None and reason == "exception" else result.message
    return Outcome(
        status=status,
        reason=reason,
        message=_message(first, warnings, masker),
        traceback=error.trace if error is not None and reason != "cancelled" else None,
        result=result.json,
        detail="stopped: this hub was cut off from the database" if status == "LOST" else None,
        may_retry=status in ("FAILURE", "LOST"),
    )


def refuse(reason: str, error: BaseException, masker: Masker) -> Outcome:
    """The outcome of a run that cannot be started: `bad_handler` or `bad_secret`."""
    return Outcome("FAILURE", reason, message=_message(one_line(error, masker), [], masker))


def retry_delay(outcome: Outcome, attempt: int, max_attempts: int, delays: list[int]) -> int | None:
    """Seconds until the next attempt; None where none is left or the reason allows none."""
    if not outcome.may_retry or outcome.reason in NEVER_RETRIED or attempt >= max_attempts:
        return None
    return delays[min(attempt, len(delays)) - 1] if delays else 0


def encode(value: Any, masker: Masker) -> Result:
    """Take what a plugin returned, in the plugin's own thread: a huge value takes its time.

    Raises BadResult.
    """
    message = value.get("message") if isinstance(value, dict) else None
    return Result(result_json(value, masker), _cut(message, masker) if isinstance(message, str) else "")


def result_json(value: Any, masker: Masker) -> str | None:
    """`value` masked, as the text of a jsonb column; a larger one than 1 MiB as {truncated, bytes, head}."""
    if value is None:
        return None
    try:
        size = 0
        if _has_many(value):
            size = sum(len(piece.encode()) for piece in _ENCODER.iterencode(value))
            value = value if size <= RESULT_BYTES else _beginning(value)
        text = _ENCODER.encode(value)
        if masker.knows_any:  # from the text: what the plugin made may be a ring, or change while it is read
            text = _ENCODER.encode(masker.json(json.loads(text)))
        size = max(size, len(text.encode()))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"the result is no JSON: {one_line(error, masker)}") from None
    if size > RESULT_BYTES:
        cut = {"truncated": True, "bytes": size, "head": clean(text[:_HEAD_CHARS])}
        return json.dumps(cut, ensure_ascii=False)
    # Not in a huge text: that would stop all threads for as long as it takes.
    if "\\u0000" in text and _NUL.search(text):
        raise BadResult("the result is no JSON that PostgreSQL can store: it holds a NUL character")
    return text


def _has_many(value: Any) -> bool:
    """Whether so much is in it that encoding it in one go would stop all threads for too long."""
    count, left = 1, [value]
    while left:
        one = left.pop()
        if isinstance(one, _NESTS):
            count += len(one)
            if count > _MANY:
                return True
            left.extend(dict.values(one) if isinstance(one, dict) else one)
    return False


def _beginning(value: Any) -> Any:
    """As much of it as the head of a cut result can show."""
    room = 2 * _HEAD_CHARS

    def take(one: Any) -> Any:
        nonlocal room
        room -= len(one) if isinstance(one, str) else 1
        if isinstance(one, dict):
            return {key: take(item) for key, item in takewhile(lambda item: room > 0, one.items())}
        if isinstance(one, list | tuple):
            return [take(item) for item in takewhile(lambda item: room > 0, one)]
        return one

    return take(value)


def progress_json(done: float, total: float | None) -> str | None:
    """What ctx.progress was told, as the text of a jsonb column; None where it was no figure."""
    figures = [done] if total is None else [done, total]
    if not all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures):
        return None
    return json.dumps({"done": done, "total": total})


def one_line(error: BaseException, masker: Masker) -> str:
    """`Type: text`, masked, in one line, whatever the exception's own `__str__` does."""
    try:
        head, rest = masker.ends(str(error), MESSAGE_CHARS)
        text = " ".join(head.split()) + (TRUNCATED if rest is not None else "")
    except BaseException:  # a plugin's own exception may do anything when it is shown
        text = "(the exception cannot be shown)"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def clean(text: str) -> str:
    """`text` as PostgreSQL can store it: NUL and lone surrogates written out."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _message(first: str, warnings: list[str], masker: Masker) -> str | None:
    if not first and not warnings:
        return None
    return _cut("\n".join(part for part in [first, *warnings] if part), masker) or None


def _cut(text: str, masker: Masker) -> str:
    """`text` masked, and not longer than a message may be."""
    head, rest = masker.ends(text, MESSAGE_CHARS)
    text = clean(head)
    if rest is None and len(text) <= MESSAGE_CHARS:
        return text
    return text[: MESSAGE_CHARS - len(TRUNCATED)] + TRUNCATED
