"""Writes the tables of docs/configure.md and of its Chinese twin: `python -m tests.manual_settings`.

Names, defaults and bounds come from the code, the words from config.example.toml (which a test compares with
the code). What stands above the mark in the pages is left alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from connecthub.config import Settings

ROOT = Path(__file__).parent.parent
PAGES = {"en": ROOT / "docs" / "configure.md", "zh": ROOT / "docs" / "configure.zh-CN.md"}
MARK = "<!-- what follows is written by: python -m tests.manual_settings -->\n"
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_COLUMNS = {
    "en": "| setting, variable | default | allowed | meaning |",
    "zh": "| 设置，环境变量 | 默认值 | 允许的值 | 含义 |",
}


def page(language: str) -> str:
    """The whole page as it should be."""
    told = _explanations()
    parts = [PAGES[language].read_text("utf-8").partition(MARK)[0] + MARK]
    for section, field in Settings.model_fields.items():
        rows = [f"\n## [{section}]\n", _COLUMNS[language], "| --- | --- | --- | --- |"]
        for name, setting in type(field.default).model_fields.items():
            default, text = _default(getattr(field.default, name)), told[section, name][language]
            variable = f"CONNECTHUB_{section}__{name}".upper()
            cells = [f"`{name}`<br>`{variable}`", f"`{default}`", _allowed(setting), text]
            rows.append("| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |")
        parts.append("\n".join(rows) + "\n")
    return "".join(parts)


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _allowed(setting: FieldInfo) -> str:
    """What the code says of choice or size; empty where it says neither."""
    if get_origin(setting.annotation) is Literal:
        return " ".join(f"`{one}`" for one in get_args(setting.annotation))
    least = [one.ge for one in setting.metadata if hasattr(one, "ge")]
    most = [one.le for one in setting.metadata if hasattr(one, "le")]
    signs = [f"≥ {max(least)}" if least else "", f"≤ {min(most)}" if most else ""]
    return " ".join(filter(None, signs))


def _explanations() -> dict[tuple[str, str], dict[str, str]]:
    """The comments of config.example.toml by section and setting, by language."""
    section, comments = "", list[str]()
    told: dict[tuple[str, str], dict[str, str]] = {}
    for line in (ROOT / "config.example.toml").read_text("utf-8").splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section, comments = header[1], []
        elif line.startswith("# "):
            comments.append(re.sub(r"<data>(/[\w.-]+)?", r"`\g<0>`", line[2:]))
        elif setting := re.match(r"(\w+) = ", line):
            chinese = [one for one in comments if _CHINESE.search(one)]
            english = [one for one in comments if one not in chinese]
            told[section, setting[1]] = {"en": " ".join(english), "zh": "".join(chinese)}
            comments = []
    return told


if __name__ == "__main__":
    for name, file in PAGES.items():
        file.write_text(page(name), "utf-8")
