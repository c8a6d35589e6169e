"""Masking: no secret of a run leaves it in clear, nor written otherwise.

A `Masker` is made per run from its secrets and may learn more while the run goes on (tokens that a client
got). It knows each value in the forms that programs write: raw, repr, JSON, URL-quoted, HTML-escaped, base64,
and these on top of JSON. It costs next to nothing until the first text comes: the forms are made then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from connecthub.security.spellings import spellings

MASK = "***"
# Shorter values are masked only where they are a whole value: they would shred figures.
_SHORTEST = 6
# Deeper values are cut off: nothing that JSON can store later is nested so deeply.
_DEEPEST = 100
_TOO_DEEP = "[nested too deeply]"


class Masker:
    """Masks the values of `secrets` (any nesting of dicts and lists) in texts and JSON values.

    Texts count as they are, numbers as their text; texts of several lines count line by line as well.
    Safe to share between threads.
    """

    __slots__ = ("_forms", "_known", "_lock", "_longest", "_made", "_new", "_whole")

    def __init__(self, secrets: dict[str, Any]) -> None:
        self._lock = threading.RLock()  # what the collector frees may print, which masks, at any point
        self._new: list[str] = []  # values whose forms are not made yet
        self._known: set[str] = set()
        self._whole: set[str] = set()  # short values
        self._made: dict[str, None] = {}  # the forms, in one order
        self._forms: tuple[str, ...] = ()  # the same, for those that read without the lock
        self._longest = 0
        if secrets:
            self._new.extend(_leaves(secrets))

    def __repr__(self) -> str:
        return "Masker(***)"

    def add(self, value: object) -> None:
        """Masks `value` too from now on: a text, a number, or dicts and lists of them."""
        values = list(_leaves(value))
        with self._lock:
            self._new.extend(values)

    @property
    def knows_any(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._new or self._known)

    @property
    def longest(self) -> int:
        """The length of the longest form. Who cuts a text into pieces before masking holds back that much."""
        if self._new:
            self._learn()
        return self._longest

    def text(self, text: str) -> str:
        """`text` with every form of every secret replaced by `***`; what overlaps or touches becomes one."""
        if self._new:
            self._learn()
        found = [form for form in self._forms if form in text]
        if found:
            return _mask_spans(text, _spans(text, found))
        return MASK if text in self._whole else text

    def ends(self, text: str, head: int, tail: int = 0) -> tuple[str, str | None]:
        """`text` masked, and None; of a longer one its first `head` and its last `tail` characters, masked.

        What is cut away is not looked at, so that a huge text costs little; no part of a secret that a cut
        goes through is left.
        """
        margin = self.longest
        if len(text) <= head + tail + 2 * margin:
            masked = self.text(text)
            if len(masked) <= head + tail:
                return masked, None
            return masked[:head], masked[len(masked) - tail :]
        first, last = self.text(text[: head + margin]), self.text(text[len(text) - tail - margin :])
        return first[: max(len(first) - margin, 0)], last[margin:] if tail else ""

    def json(self, value: Any) -> Any:
        """A JSON value with all its texts, keys and numbers masked; tuples become lists.

        A number whose text changes becomes that text. What is nested over 100 levels deep is cut off. Objects
        that are no JSON are returned as they are: turn them into texts before.
        """
        if self._new:
            self._learn()
        return self._json(value, 0) if self._forms or self._whole else value

    def _json(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._number(value)
        if isinstance(value, (dict, list, tuple)):
            if depth >= _DEEPEST:
                return _TOO_DEEP
            return self._object(value, depth) if isinstance(value, dict) else self._array(value, depth)
        return value

    def _array(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        return [self._json(item, depth + 1) for item in value]

    def _object(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        masked: dict[Any, Any] = {}
        for key, item in value.items():
            name = key if isinstance(key, tuple) else self._json(key, depth)
            while name in masked and isinstance(name, str):
                name += "*"  # two keys masked alike: both entries stay
            masked[name] = self._json(item, depth + 1)
        return masked

    def _number(self, value: float) -> Any:
        text = _number_text(value)
        masked = self.text(text)
        return value if masked == text else masked

    def _learn(self) -> None:
        """Makes the forms of the values that are new."""
        with self._lock:
            new = set(self._new)
            for value in new:
                for part in _parts(value) - self._known:
                    if len(part) < _SHORTEST:
                        self._whole.add(part)
                    else:
                        self._made.update(spellings(part))
                    self._known.add(part)
            while len(self._forms) < len(self._made):  # again where something that was freed has masked
                self._forms = tuple(self._made.copy())
            self._longest = max(map(len, self._forms), default=0)
            # Last, and a new list: a thread that finds it empty uses forms that are complete.
            self._new = [value for value in self._new if value not in new]


def _leaves(value: object) -> Iterator[str]:
    """The texts and numbers in `value` as texts, however deep."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            yield _number_text(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)


def _number_text(value: float) -> str:
    try:
        return str(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        return ""


def _parts(value: str) -> set[str]:
    """A value, its lines, and each without the blanks around it, which clients often strip."""
    if value.split() == [value]:  # without any blank, as nearly all are
        return {value}
    lines = {part for line in value.splitlines() for part in (line, line.strip()) if len(part) >= _SHORTEST}
    return {part for part in {value, value.strip(), *lines} if part.strip()}


def _spans(text: str, found: list[str]) -> list[tuple[int, int]]:
    """Where the forms stand in `text`, in order, those that overlap or touch joined."""
    spans = []
    for form in found:
        start = text.find(form)
        while start >= 0:
            spans.append((start, start + len(form)))
            start = text.find(form, start + 1)
    spans.sort()
    joined = [spans[0]]
    for start, end in spans[1:]:
        last_start, last_end = joined[-1]
        if start <= last_end:
            joined[-1] = (last_start, max(last_end, end))
        else:
            joined.append((start, end))
    return joined


def _mask_spans(text: str, spans: list[tuple[int, int]]) -> str:
    pieces, position = [], 0
    for start, end in spans:
        pieces += [text[position:start], MASK]
        position = end
    return "".join([*pieces, text[position:]])
