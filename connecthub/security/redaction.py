"""Masking: no secret of a run leaves it in clear, nor written otherwise.

A `Masker` is made per run from its secrets and may learn more while the run goes on (tokens that a client
got). It knows each value in the forms that programs write: raw, repr, JSON, URL-quoted, HTML-escaped, base64,
and these on top of JSON. It costs next to nothing until the first text comes: the forms are made then.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

MASK = "***"
# Shorter values are masked only where they are a whole value: they would shred figures.
_SHORTEST = 6
# Deeper values are cut off: nothing that JSON can store later is nested so deeply.
_DEEPEST = 100
_TOO_DEEP = "[nested too deeply]"
# Every encoding but base64 leaves these as they are.
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


# What is left as it is by: quote(), quote("/"), encodeURIComponent, encodeURI, requests, and the query, path
# and user of an httpx URL (the last four keep `%` as well: they take that for quoted already).
_URL_SAFE = (
    "",
    "/",
    "!'()*",
    "!#$&'()*+,/:;=?@",
    "!#$%&'()*+,/:;=?@[]",
    "!$%&'()*+,-./:;=?@[\\]^_`{|}~",
    "!$%&'()*+,-./:;=@[\\]^_|~",
    "!$%&'()*+,-._~",
)
# The same for forms, where a blank is a plus: quote_plus(), with "/", and browsers and Java.
_FORM_SAFE = ("", "/", "*")


class Masker:
    """Masks the values of `secrets` (any nesting of dicts and lists) in texts and JSON values.

    Texts count as they are, numbers as their text; texts of several lines count line by line as well.
    Safe to share between threads.
    """

    __slots__ = ("_forms", "_known", "_lock", "_longest", "_new", "_whole")

    def __init__(self, secrets: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self._new: list[str] = []  # values whose forms are not made yet
        self._known: set[str] = set()
        self._whole: set[str] = set()  # short values
        self._forms: tuple[str, ...] = ()
        self._longest = 0
        if secrets:
            self._new.extend(_leaves(secrets))

    def __repr__(self) -> str:
        return "Masker(***)"

    def add(self, value: object) -> None:
        """Masks `value` too from now on: a text, a number, or dicts and lists of them."""
        with self._lock:
            self._new.extend(_leaves(value))

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
            forms = dict.fromkeys(self._forms)
            for value in self._new:
                for part in _parts(value):
                    if part in self._known:
                        continue
                    self._known.add(part)
                    if len(part) < _SHORTEST:
                        self._whole.add(part)
                    else:
                        forms.update(dict.fromkeys(_forms(part)))
            self._forms = tuple(forms)
            self._longest = max(map(len, self._forms), default=0)
            # Last, and a new list: a thread that finds it empty uses forms that are complete.
            self._new = []


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
    lines = {part for line in value.splitlines() for part in (line, line.strip()) if len(part) >= _SHORTEST}
    return {part for part in {value, value.strip(), *lines} if part.strip()}


def _forms(value: str) -> set[str]:
    """Every way in which programs write `value`, itself included."""
    forms = {value}
    if _PLAIN.fullmatch(value):
        return forms | _base64(value)
    jsons = _jsons(value)
    # A JSON body is often part of something else: a repr, another JSON text, a form field, a page.
    for text in {value, *jsons}:
        forms |= _reprs(text) | _jsons(text) | _urls(text) | _htmls(text) | _base64(text)
    return forms | jsons


def _reprs(value: str) -> set[str]:
    """As repr() and ascii() write it inside a text or bytes, whichever quotes that has, or as stderr does."""
    forms = {value.encode("ascii", "backslashreplace").decode("ascii")}
    # With both kinds of quotes in it a repr escapes the single ones, otherwise none.
    for escaped in (
        repr(f"{value}'\"")[1:-4],
        ascii(f"{value}'\"")[1:-4],
        repr(_utf8(value) + b"'\"")[2:-4],
    ):
        forms |= {escaped, escaped.replace("\\'", "'")}
    return forms


def _jsons(value: str) -> set[str]:
    """As JSON writers do it: ASCII or not, hex in either case, `/` escaped (PHP), `<>&'` escaped (pages)."""
    forms = set()
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        paged = re.sub("[<>&']", lambda found: f"\\u{ord(found[0]):04x}", text)
        for form in (text, text.replace("/", "\\/"), paged):
            forms |= {form, _upper_hex(form, _JSON_HEX)}
    return forms


def _urls(value: str) -> set[str]:
    """URL-quoted by Python, browsers, Java and httpx, which differ in what they leave; hex in either case."""
    data = _utf8(value)
    quoted = {quote(data, safe=safe) for safe in _URL_SAFE}
    quoted |= {quote(data, safe=f"{safe} ").replace(" ", "+") for safe in _FORM_SAFE}
    quoted |= {form.replace("~", "%7E") for form in quoted}
    return quoted | {_lower_hex(form) for form in quoted}


def _htmls(value: str) -> set[str]:
    """HTML-escaped, with each usual spelling of the two quotes."""
    escaped = html.escape(value, quote=False)
    return {
        escaped.replace('"', double).replace("'", single)
        for double in ('"', "&quot;", "&#34;", "&#x22;")
        for single in ("'", "&#39;", "&#x27;", "&apos;")
    }


def _base64(value: str) -> set[str]:
    """The part of base64 text that depends on `value` alone, at each of three places in a group of bytes."""
    data = _utf8(value)
    forms = set()
    for offset, shared in ((0, 0), (1, 2), (2, 3)):
        length = offset + len(data)
        whole = base64.b64encode(bytes(offset) + data).decode("ascii")[shared : length * 8 // 6]
        urlsafe = whole.replace("+", "-").replace("/", "_")
        forms |= {whole, urlsafe, quote(whole, safe=""), quote(whole), whole.replace("/", "\\/")}
    return forms | {_lower_hex(form) for form in forms if "%" in form}


_URL_HEX = re.compile("%[0-9A-F]{2}")
_JSON_HEX = re.compile(r"(?<=\\u)[0-9a-f]{4}")


def _lower_hex(form: str) -> str:
    return _URL_HEX.sub(lambda found: found[0].lower(), form)


def _upper_hex(form: str, pattern: re.Pattern[str]) -> str:
    return pattern.sub(lambda found: found[0].upper(), form)


def _utf8(value: str) -> bytes:
    # A JSON text can hold half of a surrogate pair, which plain UTF-8 refuses.
    return value.encode("utf-8", "surrogatepass")


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
