"""Fields of a form from the JSON schema of a class's Params or Secrets, and back to JSON. Pure.

A field shows one top-level key. A key that has no field, and everything a field does not understand, stays
as it is: the JSON object is the truth, fields only change keys in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "date", "integer", "number", "switch", "choice", "list", "json"]

MISSING: Any = object()
_NUMBERS = ("integer", "number")
# How the messages of Python's json begin, and the text `json.<cause>` for each; the others are about texts.
_JSON_CAUSES = (
    ("Expecting ','", "comma"), ("Expecting ':'", "colon"), ("Expecting property name", "name"),
    ("Expecting value", "value"), ("Illegal trailing comma", "value"), ("Extra data", "end"),
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One input. Texts of a choice are JSON, so that 1 and "1" stay apart; `item`: what a list holds."""

    name: str
    kind: Kind
    required: bool
    help: str = ""
    default: str | None = None  # as the input shows it; None: there is none
    choices: tuple[tuple[str, str], ...] = ()  # text, label
    low: float | None = None
    high: float | None = None
    item: str = "string"


class WrongField(ValueError):
    """What was typed does not fit; `key` names the sentence, `details` fill it."""

    def __init__(self, key: str, **details: object) -> None:
        super().__init__(key)
        self.key, self.details = key, details


def fields_of(schema: Mapping[str, Any] | None) -> list[Field]:
    """The fields of a model, in its order; none for no model."""
    if not schema:
        return []
    required = schema.get("required", [])
    defs = schema.get("$defs", {})
    properties = schema.get("properties", {})
    return [_field(name, _plain(part, defs), name in required) for name, part in properties.items()]


def show(field: Field, value: Any) -> str:
    """A value as the input shows it; MISSING is empty. A value the input cannot hold is shown as JSON."""
    if value is MISSING:
        return "" if field.kind != "switch" else (field.default or "false")
    if field.kind in ("text", "date") and isinstance(value, str):
        return value
    if field.kind == "list" and _is_list_of_lines(value):
        return "\n".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, indent=2 if field.kind == "json" else None)


def read(field: Field, text: str) -> Any:
    """The value of what was typed, MISSING for nothing. Raises WrongField."""
    if not text.strip() and (field.kind != "text" or not text):
        return MISSING
    if field.kind in ("text", "date"):
        return text
    if field.kind in _NUMBERS:
        return _number(field, text)
    if field.kind == "switch":
        return text == "true"
    if field.kind == "choice":
        if text not in [choice for choice, _ in field.choices]:
            raise WrongField("choice", allowed=", ".join(label for _, label in field.choices))
        return json.loads(text)
    if field.kind == "list":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        plain = Field(field.name, "integer" if field.item == "integer" else "number", False)
        return lines if field.item == "string" else [_number(plain, line) for line in lines]
    return parse_json(text)


def merge(
    fields: list[Field], base: Mapping[str, Any], typed: Mapping[str, str], onto: dict[str, Any]
) -> dict[str, WrongField]:
    """Put into `onto` what was changed in the fields since they showed `base`; what is wrong, by field."""
    wrong: dict[str, WrongField] = {}
    for field in fields:
        text = typed.get(field.name)
        if text is None or text == show(field, base.get(field.name, MISSING)):
            continue
        try:
            value = read(field, text)
        except WrongField as error:
            wrong[field.name] = error
            continue
        if value is MISSING:
            onto.pop(field.name, None)
        else:
            onto[field.name] = value
    return wrong


def parse_json(text: str) -> Any:
    """Strict JSON that PostgreSQL can store. Raises WrongField, with line and column where it knows them."""
    try:
        data = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        cause = next((cause for words, cause in _JSON_CAUSES if error.msg.startswith(words)), "text")
        raise WrongField("json_at", line=error.lineno, column=error.colno, cause=cause) from None
    except (ValueError, RecursionError):
        raise WrongField("json") from None
    try:
        storable = "\\u0000" not in json.dumps(data).replace("\\\\", "")
        json.dumps(data, ensure_ascii=False).encode()  # a lone surrogate fails here
    except (UnicodeEncodeError, RecursionError):
        storable = False
    if not storable:
        raise WrongField("characters")
    return data


def bound(number: float) -> str:
    """The least or most of a field as people read it."""
    return f"{number:g}" if abs(number) < 1e6 else f"{number:.0f}"


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is; None where it is anything else."""
    try:
        data = parse_json(text)
    except WrongField:
        return None
    return data if isinstance(data, dict) else None


def _plain(part: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """`part` with references followed, and `| None` taken out: an empty input says None."""
    plain = dict(part)
    for _ in range(10):  # models may refer to themselves
        options = [option for option in plain.get("anyOf", []) if option.get("type") != "null"]
        if "$ref" in plain:
            inner = defs.get(str(plain.pop("$ref")).rpartition("/")[2], {})
        elif len(plain.get("allOf", [])) == 1:
            inner = plain.pop("allOf")[0]
        elif len(options) == 1:
            plain.pop("anyOf")
            inner = options[0]
        else:
            break
        plain = {**inner, **plain}
    return plain


def _field(name: str, part: dict[str, Any], required: bool) -> Field:
    kind, choices, item = _kind(part)
    bare = Field(name, kind, required)
    default = part.get("default", MISSING)
    if default is None:
        default = MISSING
    low, high = _bounds(part) if kind in _NUMBERS else (None, None)
    return Field(
        name,
        kind,
        required,
        help=str(part.get("description", "")),
        default=None if default is MISSING else show(bare, default),
        choices=choices,
        low=low,
        high=high,
        item=item,
    )


def _kind(part: dict[str, Any]) -> tuple[Kind, tuple[tuple[str, str], ...], str]:
    values = part.get("enum", [part["const"]] if "const" in part else [])
    if values:
        labels = [
            (json.dumps(value, ensure_ascii=False), value if isinstance(value, str) else json.dumps(value))
            for value in values
        ]
        return "choice", tuple(labels), ""
    kind = part.get("type")
    if kind == "string":
        return "date" if part.get("format") == "date" else "text", (), ""
    if kind == "boolean":
        if isinstance(part.get("default"), bool):
            return "switch", (), ""
        return "choice", (("true", "true"), ("false", "false")), ""
    if kind in _NUMBERS:
        return kind, (), ""
    items = part.get("items", {})
    if kind == "array" and items.get("type") in ("string", *_NUMBERS) and "enum" not in items:
        return "list", (), items["type"]
    return "json", (), ""


def _bounds(part: dict[str, Any]) -> tuple[float | None, float | None]:
    step = 1 if part.get("type") == "integer" else 0
    low, high = part.get("minimum"), part.get("maximum")
    if low is None and "exclusiveMinimum" in part:
        low = part["exclusiveMinimum"] + step
    if high is None and "exclusiveMaximum" in part:
        high = part["exclusiveMaximum"] - step
    return low, high


def _number(field: Field, text: str) -> int | float:
    key = "whole" if field.kind == "integer" else "decimal"
    try:
        number = int(text) if field.kind == "integer" else float(text)
    except ValueError:
        number = math.nan
    fits = len(text) < 40 and math.isfinite(number)
    if fits and (field.low is None or number >= field.low) and (field.high is None or number <= field.high):
        return number
    if field.low is not None and field.high is not None:
        raise WrongField(f"{key}_between", low=bound(field.low), high=bound(field.high), got=text[:40])
    if field.low is not None:
        raise WrongField(f"{key}_from", low=bound(field.low), got=text[:40])
    if field.high is not None:
        raise WrongField(f"{key}_to", high=bound(field.high), got=text[:40])
    raise WrongField(key, got=text[:40])


def _is_list_of_lines(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, str | int | float) and not isinstance(item, bool) and "\n" not in str(item)
        for item in value
    )


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond all bounds")
    return number
