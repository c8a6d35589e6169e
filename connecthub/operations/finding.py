"""One line of `connecthub check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and in `text` the figures or what to do.

    A fault keeps Jobs from running, or loses something; a warning is for a person to judge.
    """

    name: str
    state: Literal["ok", "warning", "fault"]
    text: str


def ok(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", text)


def warning(name: str, text: str) -> Finding:
    """Something for a person to judge."""
    return Finding(name, "warning", text)


def fault(name: str, text: str) -> Finding:
    """Something that keeps Jobs from running, or loses something."""
    return Finding(name, "fault", text)
