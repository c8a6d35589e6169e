"""How programs write a text: every spelling of a secret that must be found."""

from __future__ import annotations

import html
import json
import re
from binascii import b2a_base64
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

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


_SHORT = 1000  # longer values are not kept: they would fill the memory


def spellings(value: str) -> Mapping[str, None]:
    """Every way in which programs write `value`, itself included, as keys.

    Those of the values that were asked for last are kept: a hard one takes over a millisecond, and a Job has
    the same secrets in each run.
    """
    return _kept(value) if len(value) <= _SHORT else _made(value)


@lru_cache(1000)
def _kept(value: str) -> Mapping[str, None]:
    return _made(value)


def _made(value: str) -> Mapping[str, None]:
    forms = {value}
    if _PLAIN.fullmatch(value):
        return dict.fromkeys(forms | _base64(value))
    jsons = _jsons(value)
    # A JSON body is often part of something else: a repr, another JSON text, a form field, a page.
    for text in {value, *jsons}:
        forms |= _reprs(text) | _jsons(text) | _urls(text) | _htmls(text) | _base64(text)
    return dict.fromkeys(forms | jsons)


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
        whole = b2a_base64(bytes(offset) + data, newline=False).decode("ascii")[shared : length * 8 // 6]
        forms.add(whole)
        if "+" in whole or "/" in whole:
            urlsafe = whole.replace("+", "-").replace("/", "_")
            forms |= {urlsafe, quote(whole, safe=""), quote(whole), whole.replace("/", "\\/")}
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
