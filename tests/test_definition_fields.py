"""Fields of a form from JSON schemas, and from what was typed back to JSON."""

from __future__ import annotations

import json
from datetime import date
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from connecthub.definitions.fields import MISSING, WrongField, fields_of, merge, parse_json, read, show


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Part(BaseModel):
    x: int = 0


class Model(BaseModel):
    text: str
    day: date | None = None
    count: int = Field(3, gt=0, lt=10)
    share: float = 0.5
    flag: bool = True
    maybe: bool | None = None
    size: Size = Size.SMALL
    kind: Literal["a", 1] = "a"
    names: list[str] = []
    numbers: list[int] = []
    part: Part = Part()
    anything: Any = None


FIELDS = {one.name: one for one in fields_of(Model.model_json_schema())}


def test_kinds_follow_the_types() -> None:
    kinds = {name: one.kind for name, one in FIELDS.items()}
    assert kinds == {
        "text": "text", "day": "date", "count": "integer", "share": "number", "flag": "switch",
        "maybe": "choice", "size": "choice", "kind": "choice", "names": "list", "numbers": "list",
        "part": "json", "anything": "json",
    }  # fmt: skip
    assert FIELDS["text"].required and not FIELDS["count"].required
    assert (FIELDS["count"].low, FIELDS["count"].high, FIELDS["count"].default) == (1, 9, "3")
    assert FIELDS["kind"].choices == (('"a"', "a"), ("1", "1"))
    assert fields_of(None) == [] and fields_of({}) == []


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("text", " x ", " x "), ("text", "", MISSING), ("count", " 7 ", 7), ("share", "0.25", 0.25),
        ("flag", "false", False), ("maybe", "true", True), ("kind", "1", 1),
        ("names", "a\n\n b \n", ["a", "b"]),
        ("numbers", "1\n2", [1, 2]), ("part", '{"x": 2}', {"x": 2}), ("part", " ", MISSING),
    ],
)  # fmt: skip
def test_what_was_typed_becomes_a_value(name: str, typed: str, value: Any) -> None:
    assert read(FIELDS[name], typed) == value


@pytest.mark.parametrize(
    ("name", "typed", "key"),
    [
        ("count", "10", "whole_between"), ("count", "x", "whole_between"), ("count", "1.5", "whole_between"),
        ("share", "nan", "decimal"), ("count", "1" * 400, "whole_between"), ("numbers", "1" * 400, "whole"),
        ("kind", '"b"', "choice"), ("numbers", "1\nx", "whole"),
        ("part", "{", "json_at"), ("part", '"\\u0000"', "characters"), ("part", "1e999", "json"),
        ("part", "[" * 99_999, "json"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name: str, typed: str, key: str) -> None:
    with pytest.raises(WrongField) as refused:
        read(FIELDS[name], typed)
    assert refused.value.key == key


def test_only_changed_fields_touch_the_object() -> None:
    fields = list(FIELDS.values())
    base = {"text": "old", "count": "odd", "names": ["a"], "unknown": 1}
    typed = {one.name: show(one, base.get(one.name, MISSING)) for one in fields}
    onto = dict(base)
    assert merge(fields, base, typed, onto) == {} and onto == base, "a value no field understands stays"
    onto = {**base, "text": "typed as JSON"}
    wrong = merge(fields, base, {**typed, "count": "11", "names": ""}, onto)
    assert list(wrong) == ["count"] and onto == {"text": "typed as JSON", "count": "odd", "unknown": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), JSON))
def test_an_untouched_form_changes_nothing(base: dict[str, Any]) -> None:
    fields = list(FIELDS.values())
    typed = {one.name: show(one, base.get(one.name, MISSING)) for one in fields}
    onto = json.loads(json.dumps(base))
    assert merge(fields, base, typed, onto) == {} and onto == base


@given(st.text())
def test_parsing_any_text_gives_a_value_or_says_why(text: str) -> None:
    try:
        json.dumps(parse_json(text), ensure_ascii=False).encode()
    except WrongField:
        pass
