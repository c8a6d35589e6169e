"""Masking: whatever a program writes a secret as, nothing of it is left; and what is no secret stays."""

from __future__ import annotations

import base64
import html
import json
import re
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import escape

from connecthub.security.redaction import MASK, Masker

# What some encoding or other has to escape.
NASTY = "\"'\\/<>&%+=?# ~!@$^`{}[]|:;,.\t\n密码é😀Ab1"
VALUES = st.one_of(
    st.text(min_size=6, max_size=24),
    st.text(st.sampled_from(NASTY), min_size=6, max_size=16),
    st.text(st.sampled_from("ab"), min_size=6, max_size=12),
).filter(lambda value: len(value.strip()) >= 6 and value not in MASK * 10)
ENCODABLE = VALUES.filter(lambda value: not any(0xD800 <= ord(one) < 0xE000 for one in value))
AROUND = st.text(st.sampled_from("xyz \n\"'\\=,&密"), max_size=5)

ENCODINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "repr": lambda text: repr(text)[1:-1],
    # In front: behind, a backslash that ends the text could not be told from the one of an escaped quote.
    "repr beside a single quote": lambda text: repr(f"'{text}")[1:-1].removeprefix("\\").removeprefix("'"),
    "repr beside both quotes": lambda text: repr(f"\"'{text}")[4:-1],
    "ascii": lambda text: ascii(text)[1:-1],
    "backslashreplace": lambda text: text.encode("ascii", "backslashreplace").decode(),
    "bytes": lambda text: repr(text.encode())[2:-1],
    "bytes beside both quotes": lambda text: repr(b"\"'" + text.encode())[5:-1],
    "json": lambda text: json.dumps(text)[1:-1],
    "json not ascii": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json of php": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json of jackson": lambda text: re.sub(
        r"(?<=\\u)[0-9a-f]{4}", lambda m: m[0].upper(), json.dumps(text)[1:-1]
    ),
    "json in pages": lambda text: str(htmlsafe_json_dumps(text))[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text))[3:-3],
    "json in json not ascii": lambda text: json.dumps(json.dumps(text, ensure_ascii=False))[3:-3],
    "json in repr": lambda text: repr(json.dumps(text))[2:-2],
    "json in bytes": lambda text: repr(json.dumps(text, ensure_ascii=False).encode())[3:-2],
    "json in url": lambda text: quote(json.dumps(text)[1:-1], safe=""),
    "json in html": lambda text: html.escape(json.dumps(text)[1:-1]),
    "quote all": lambda text: quote(text, safe=""),
    "quote": quote,
    "quote_plus": quote_plus,
    "quote lower": lambda text: _lower(quote(text, safe="")),
    "quote_plus lower": lambda text: _lower(quote_plus(text)),
    "encodeURIComponent": lambda text: quote(text, safe="!'()*~"),
    "encodeURI": lambda text: quote(text, safe="!#$&'()*+,/:;=?@~"),
    "java": lambda text: quote_plus(text, safe="*").replace("~", "%7E"),
    "urlencode": lambda text: urlencode({"": text}).removeprefix("="),
    "requests": lambda text: quote(quote(text, safe=""), safe="!#$%&'()*+,/:;=?@[]~"),
    "html": html.escape,
    "html without quotes": lambda text: html.escape(text, quote=False),
    "markupsafe": lambda text: str(escape(text)),
    "html apos": lambda text: html.escape(text).replace("&#x27;", "&apos;"),
}


def _lower(quoted: str) -> str:
    parts = quoted.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def bare(text: str) -> str:
    """`text` without masks."""
    return text.replace(MASK, "")


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(value=ENCODABLE, before=AROUND, after=AROUND)
@example(value="p\"a's/s\\w+ö 中😀", before="", after="")
@example(value="\\'\\'\"\"", before="'", after='"')
@example(value="aaaaaa", before="", after="")
@example(value="0000\x1f\\", before="", after="")
@settings(max_examples=40)
def test_no_encoding_survives(encoding: str, value: str, before: str, after: str) -> None:
    written = ENCODINGS[encoding](value)
    masked = Masker({"key": value}).text(f"{before}#{written}#{after}")
    assert masked == f"{before}#{MASK}#{after}"


@pytest.mark.parametrize("encoding", ["raw", "json", "json not ascii"])
@given(value=ENCODABLE, before=st.binary(max_size=7), after=st.binary(max_size=7))
@settings(max_examples=200)
def test_base64_at_any_place_between_any_neighbours(
    encoding: str, value: str, before: bytes, after: bytes
) -> None:
    data = before + ENCODINGS[encoding](value).encode() + after
    for written in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        masked = Masker({"key": value}).text(f"Authorization: {written.decode()}.")
        assert MASK in masked
        # What is left of the secret is less than a character on either side.
        start, end = (
            masked.index(MASK) - len("Authorization: "),
            len(masked) - masked.rindex(MASK) - 3 - len("."),
        )
        assert start <= -(-len(before) * 8 // 6) + (len(before) % 3 > 0)
        assert end <= -(-len(after) // 3) * 4 + 4


@pytest.mark.parametrize("offset", range(6))
@pytest.mark.parametrize("neighbour", [0, 0x41, 0xFF])
def test_base64_by_brute_force(offset: int, neighbour: int) -> None:
    value = "s3cr?t>~~>密"
    data = bytes([neighbour]) * offset + value.encode() + bytes([neighbour]) * 5
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        written = encode(data).decode()
        masked = Masker({"k": value}).text(written)
        # The characters that hold only bits of the value are gone, and no others.
        first, last = -(-offset * 8 // 6), (offset + len(value.encode())) * 8 // 6
        assert masked == written[:first] + MASK + written[last:]
        quoted = Masker({"k": value}).text(quote(written, safe=""))
        assert quoted == quote(written[:first], safe="") + MASK + quote(written[last:], safe="")


def test_basic_authorisation() -> None:
    request = httpx.Request("GET", "http://h/")
    flow = httpx.BasicAuth("svc-oa", "hunter22").auth_flow(request)
    header = next(flow).headers["Authorization"]
    assert len(bare(Masker({"p": "hunter22"}).text(header))) <= len("Basic ") + 12
    assert Masker({"p": "hunter22", "u": "svc-oa:hunter22"}).text(header) == "Basic ***"


@given(value=ENCODABLE.filter(str.isprintable))
@example(value="a%20b c|d^e`f{g}")
def test_urls_of_httpx(value: str) -> None:
    masker = Masker({"k": value})
    written = str(httpx.URL("http://h/", params={"token": value}))
    assert masker.text(written) == "http://h/?token=***"
    if not set(value) & set("#?/\\%"):
        assert masker.text(str(httpx.URL(f"http://h/{value}x?y"))) in ("http://h/***x?y", "http://h/***?y")


@given(values=st.lists(VALUES, min_size=1, max_size=4), data=st.data())
@settings(max_examples=200)
def test_overlapping_secrets_leave_no_tail(values: list[str], data: st.DataObject) -> None:
    longest = max(values, key=len)
    cut = data.draw(st.integers(0, len(longest)))
    secrets = {**{str(number): value for number, value in enumerate(values)}, "part": longest[:cut]}
    text = data.draw(st.permutations([*values, longest]).map("".join))
    masked = Masker(secrets).text(text)
    assert not bare(masked), "every character of the text belongs to a secret"


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        (["abcdef", "abcdefghij"], "abcdefghij", "***"),
        (["abcdefghij", "abcdef"], "abcdefghij abcdef", "*** ***"),
        (["abcdef", "defghi"], "xabcdefghix", "x***x"),
        (["aaaaaa"], "baaaaaaaaab", "b***b"),
        (["abcdef"], "abcdefabcdef", "***"),
    ],
)
def test_spans_are_joined(secrets: list[str], text: str, masked: str) -> None:
    assert Masker({"k": secrets}).text(text) == masked


# Which values


def test_values_of_every_kind_and_depth() -> None:
    masker = Masker(
        {"a": {"b": ["deepest-value", {"c": 12345678}]}, "f": 1234.567, "none": None, "yes": True}
    )
    assert masker.text("deepest-value 12345678 1234.567 None True") == "*** *** *** None True"


def test_a_secret_nested_deeper_than_python_recurses() -> None:
    nested: Any = "hunter22"
    for _ in range(5000):
        nested = [nested]
    assert Masker({"k": nested}).text("x hunter22") == "x ***"


def test_short_values_only_where_they_are_the_whole() -> None:
    masker = Masker({"pin": "1234", "flag": 7, "empty": "", "blank": "        "})
    assert masker.text("1234") == MASK
    assert masker.text("7") == MASK
    assert masker.text("row 1234 of 7") == "row 1234 of 7"
    assert masker.text("") == ""
    assert masker.text("indented        text") == "indented        text"
    assert Masker({"k": "True"}).json({"ok": True, "text": "True"}) == {"ok": True, "text": MASK}
    assert masker.json({"total": 12345, "pin": 1234, "n": 7, "ok": True}) == {
        "total": 12345,
        "pin": MASK,
        "n": MASK,
        "ok": True,
    }


def test_six_characters_are_enough_and_five_are_not() -> None:
    assert Masker({"k": "abcdef"}).text("xabcdefx") == "x***x"
    assert Masker({"k": "abcde"}).text("xabcdex") == "xabcdex"


def test_lines_count_on_their_own() -> None:
    pem = "-----BEGIN KEY-----\r\n  MIIabc+/def\nqwertyuiop\nab=\n-----END KEY-----\n"
    masker = Masker({"pem": pem})
    assert masker.text("only MIIabc+/def here") == "only *** here"
    assert masker.text(f"<{pem}>") == "<***>"
    assert masker.text("a line: ab=") == "a line: ab="
    assert masker.text("ab=") == "ab=", "a short line is no value"
    assert masker.text(base64.b64encode(b"qwertyuiop").decode()) == "***A=="


def test_blanks_around_a_value_may_be_gone() -> None:
    assert Masker({"k": "  hunter22\n"}).text("[hunter22]") == "[***]"
    assert Masker({"k": " 1234 "}).text("1234") == MASK


def test_learning_while_running() -> None:
    masker = Masker({})
    assert masker.text("token-one") == "token-one"
    masker.add("token-one")
    assert masker.text("token-one") == MASK
    masker.add({"x": ["token-two", 99887766]})
    assert masker.text("token-one token-two 99887766") == "*** *** ***"


def test_later_changes_of_the_secrets_change_nothing() -> None:
    secrets: dict[str, Any] = {"k": "hunter22"}
    masker = Masker(secrets)
    secrets.clear()
    assert masker.text("hunter22") == MASK


def test_learning_from_many_threads() -> None:
    masker = Masker({"k": "hunter22"})
    leaks: list[str] = []

    def learn(number: int) -> None:
        for step in range(50):
            token = f"token-{number}-{step}-end"
            masker.add(token)
            leaks.extend(
                text for text in (masker.text(f"<{token}>"), masker.text("hunter22")) if "*" not in text
            )

    threads = [threading.Thread(target=learn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not leaks
    assert all(masker.text(f"token-{n}-{s}-end") == MASK for n in range(8) for s in range(50))


def test_a_masker_does_not_show_what_it_masks() -> None:
    masker = Masker({"k": "hunter22"})
    masker.text("x")
    assert "hunter22" not in repr(masker)


# JSON values


def test_json_values() -> None:
    masker = Masker({"k": "hunter22", "n": 1234567})
    given_value = {
        "text": "the hunter22",
        "hunter22": {"deep": ("hunter22", 1234567, 12345678, 1234567.5, 5, None, False)},
        1234567: "a number as key",
        None: 1,
        ("a", "b"): 2,
    }
    assert masker.json(given_value) == {
        "text": "the ***",
        "***": {"deep": ["***", "***", "***8", "***.5", 5, None, False]},
        "****": "a number as key",
        None: 1,
        ("a", "b"): 2,
    }
    assert given_value["text"] == "the hunter22", "the value itself is left alone"


def test_keys_that_are_masked_alike_all_stay() -> None:
    masked = Masker({"a": "hunter22", "b": "hunter33"}).json({"hunter22": 1, "hunter33": 2})
    assert masked == {"***": 1, "****": 2}


def test_values_deeper_than_json_stores() -> None:
    nested: Any = "hunter22"
    for _ in range(50_000):
        nested = [nested]
    masked = Masker({"k": "hunter22"}).json({"nested": nested})
    assert "hunter22" not in json.dumps(masked)
    assert "[nested too deeply]" in json.dumps(masked)


def test_fifty_levels_are_kept() -> None:
    nested: Any = "hunter22"
    for _ in range(50):
        nested = {"in": nested}
    assert json.dumps(Masker({"k": "hunter22"}).json(nested)).count("in") == 50


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_holds_no_secret_stays_as_it_is(value: Any) -> None:
    assert Masker({"k": "hunter22-never-drawn"}).json(value) == value
    assert Masker({}).json(value) is value


def test_integers_too_long_to_write() -> None:
    huge = 10**5000
    assert Masker({"k": "hunter22", "n": huge}).json([huge]) == [huge]


@pytest.mark.parametrize("value", ["half \ud800 pair", "\udcff\udcfe\udcfd\udcfc\udcfb\udcfa"])
def test_half_surrogate_pairs(value: str) -> None:
    masker = Masker({"k": value})
    assert masker.text(f"x{value}x") == "x***x"
    assert masker.text(json.dumps(value)) == '"***"'
    assert masker.text("another \ud801") == "another \ud801"
    assert Masker({"k": "hunter22"}).text("\ud800hunter22") == "\ud800***"


# In use


def test_tracebacks() -> None:
    value = "pä'ss\\w\"ö"
    masker = Masker({"k": value})
    try:
        raise KeyError({"password": value, "body": json.dumps({"password": value})})
    except KeyError:
        text = traceback.format_exc()
    masked = masker.text(text)
    assert masked.count(MASK) == 2
    assert "ss" not in masked.splitlines()[-1].replace("password", "")


def test_the_longest_form() -> None:
    assert Masker({}).longest == 0
    assert Masker({"k": "abc"}).longest == 0
    masker = Masker({"k": "abcdef"})
    assert masker.longest == 8  # its base64
    masker.add("密码密码密码")
    assert masker.longest >= len(quote("密码密码密码"))


def test_the_longest_form_is_what_a_cutter_must_hold_back() -> None:
    value = "p\"a's/s\\w+ö"
    masker = Masker({"k": value})
    for encode in ENCODINGS.values():
        if masker.text(encode(value)) == MASK:
            assert len(encode(value)) <= masker.longest


def test_it_is_cheap() -> None:
    """Generous bounds, ten times what was measured: they catch a change of kind, not of degree."""
    secrets = {"user": "svc-oa", "password": "Xk29ffhhT7", "secret": "a1b2c3d4e5f6a7b8c9d0e1f2"}
    masker = Masker({**secrets, "more": ["P@ss/word+1", "Tr0ub4dor&3"]})
    line = "row 5: employee 10293 moved from A to B, see https://oa.example.com/x?y=1 for more about it "
    assert _microseconds(lambda: Masker(secrets)) < 20
    assert _microseconds(lambda: Masker(secrets).text(line)) < 400
    assert _microseconds(lambda: masker.text(line)) < 20
    assert _microseconds(lambda: Masker({}).text(line)) < 10


def _microseconds(call: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.process_time()
        for _ in range(500):
            call()
        return (time.process_time() - begun) / 500 * 1e6

    return min(once() for _ in range(5))
