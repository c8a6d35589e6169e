"""Tracebacks as text."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType

_LONG = 1 << 20  # characters


def text_of(error: BaseException) -> str:
    """As Python prints it.

    That takes each text in it apart into lines in one go, which stops all threads: where one is huge, it is
    only told where the exception was raised.
    """
    longest = max(_lengths(error))
    if longest <= _LONG:
        return "".join(traceback.format_exception(error))
    stack = "".join(traceback.format_tb(error.__traceback__))
    return f"{stack}{type(error).__name__}, with {longest} characters in its text or in one that led to it\n"


def where(error: BaseException) -> str:
    """Where `error` was raised; that holds no secret, as its text may."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return place(*frames[-1]) if frames else "an unknown line"


def place(frame: FrameType, line: int) -> str:
    """A line of code, as a person finds it. Its text is not read: that may run foreign code."""
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


def _lengths(error: BaseException) -> Iterator[int]:
    """How long the texts are that make up its traceback."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield _shown(one)
        notes = getattr(one, "__notes__", None)
        yield from map(_shown, notes if isinstance(notes, list | tuple) else [notes])
        left += [one.__cause__, one.__context__]
        left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def _shown(foreign: object) -> int:
    """How long the text of something is; 0 where it cannot be shown, for its own __str__ may do anything."""
    try:
        return len(str(foreign))
    except BaseException:
        return 0
