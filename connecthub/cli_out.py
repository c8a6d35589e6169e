"""What commands print: tables for people, JSON for programs. Control characters are escaped in tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from unicodedata import east_asian_width
from uuid import UUID

import click

from connecthub.logs import escaped
from connecthub.storage.jobs import Row

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_JSON_COLUMNS = ("public_cfg", "params", "result", "progress", "meta")  # jsonb, which arrives as text
_LONGEST = 100  # characters of a cell


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows below their heads; nothing but the heads where there are none."""
    cells = [list(heads), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def pairs(values: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, a line each; further lines of a value are indented below it."""
    found = [(name, cell(value, longest=None)) for name, value in values]
    width = max((len(name) for name, _ in found), default=0)
    for name, text in found:
        click.echo(f"{name:<{width}}  {text}".rstrip())


def cell(value: Any, *, longest: int | None = _LONGEST) -> str:
    """A value on one line: times in the zone of this machine, lists with commas, nothing as -."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().isoformat(sep=" ", timespec="seconds")
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = escaped(re.sub(r"\s*[\r\n]+\s*", " ", str(value)).strip())
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


def print_json(value: Any) -> None:
    """Print it as JSON on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, default=_plain))


def record(row: Row, *without: str) -> dict[str, Any]:
    """A row for JSON: the columns under their names, jsonb as what it holds."""
    return {
        name: json.loads(value) if name in _JSON_COLUMNS and isinstance(value, str) else value
        for name, value in row.items()
        if name not in without
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)


def _width(text: str) -> int:
    """Columns on a terminal, where Chinese takes two each."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
