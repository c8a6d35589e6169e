"""Drawings as SVG made on the server: sharp at every width, no script, no style attribute.

x and width are in percent and y and height in px, without a viewBox. Results differ by shape and height and
not by colour alone. Every text that comes from a Job is escaped. Thousands of marks are on one page: they are
plain strings until `_svg` makes a Markup of them, for a Markup looks at all that it joins.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from markupsafe import Markup, escape

# From the worst on: what a mark that stands for several runs shows.
WORST = ("FAILURE", "LOST", "CANCELLED", "RUNNING", "SUCCESS", "SKIPPED", "QUEUED")
_SCATTER_HEIGHT = 150
_SKIPPED_Y = 140  # the line at the bottom, for runs without a duration
_BARS_HEIGHT = 96
_STEPS = (0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)


def worst(statuses: Sequence[str]) -> str:
    """The one to show of several; "" for none."""
    return min(statuses, key=WORST.index, default="")


def cell(at: int, count: int, status: str, title: str, href: str = "") -> str:
    """The mark `at` its place of `count` in a strip: `status` is the worst one of its time, "" for none."""
    return _link(href, title, _cell(at, count, status))


def strip(cells: Sequence[str], label: str) -> Markup:
    """A row of cells, oldest left: failures fill the height, successes are low, nothing is a thin line."""
    return _svg("hub-strip", 24, label, "".join(cells))


@lru_cache(1024)
def _cell(at: int, count: int, status: str) -> str:
    step = 100 / count
    x, width = round(at * step, 3), round(step * 0.86, 3)
    tall = {"FAILURE": 22, "LOST": 22, "CANCELLED": 6, "RUNNING": 12, "SUCCESS": 8, "SKIPPED": 8, "QUEUED": 8}
    height = tall.get(status, 2)
    body = _rect(x, 23 - height, width, height, status)
    if status == "LOST":  # told from a failure by its notch as well
        body += _rect(x, 9, width, 4, "gap")
    return body


@dataclass(frozen=True)
class Hour:
    """One column of the runs per hour."""

    title: str
    href: str
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All runs of it."""
        return sum(self.counts.values())


def bars(hours: Sequence[Hour], label: str) -> Markup:
    """Stacked columns: what went well below, what failed on top, skipped hollow above all."""
    top = max([hour.total for hour in hours] + [1])
    step = 100 / max(len(hours), 1)
    columns = "".join(
        _link(hour.href, hour.title, _column(hour.counts, round(at * step, 3), round(step * 0.8, 3), top))
        for at, hour in enumerate(hours)
    )
    return _svg("hub-bars", _BARS_HEIGHT, label, columns)


def _column(counts: dict[str, int], x: float, width: float, top: int) -> str:
    scale = (_BARS_HEIGHT - 4) / top
    y = float(_BARS_HEIGHT)
    # The whole column can be hit, however low what stands in it.
    parts = [_rect(x, 0, width, _BARS_HEIGHT, "hit")]
    for status in ("SUCCESS", "RUNNING", "QUEUED", "CANCELLED", "LOST", "FAILURE", "SKIPPED"):
        if counts.get(status):
            # One failure among thousands is still seen.
            least = 3 if status in ("FAILURE", "LOST") else 1
            height = max(counts[status] * scale, least)
            y -= height
            parts.append(_rect(x, max(round(y, 1), 0), width, round(height, 1), status))
    if len(parts) == 1:
        parts.append(_rect(x, _BARS_HEIGHT - 1, width, 1, ""))
    return "".join(parts)


class Point(NamedTuple):
    """One run in a scatter; `seconds` None: it has not run."""

    at: datetime
    seconds: float | None
    status: str
    title: str
    href: str


def scatter(
    points: Sequence[Point], low: datetime, high: datetime, label: str, words: Callable[[float], str]
) -> Markup:
    """Time to the right, duration upwards on a log scale; `words` says a duration."""
    span = max((high - low).total_seconds(), 1)
    longest = max([point.seconds or 0 for point in points] + [1])
    top = next((step for step in _STEPS if step >= longest), longest)
    least = min([point.seconds for point in points if point.seconds is not None] + [1])
    low_s = max([step for step in _STEPS if step <= least] + [_STEPS[0]])
    lines = [step for step in _STEPS if low_s < step <= top][-4:]
    body = []
    for step in lines:
        y = _height(step, low_s, top)
        body += [_grid_line(y), _grid_text(y, words(step))]
    for point in points:
        x = round(1 + 98 * (point.at - low).total_seconds() / span, 2)
        y = _SKIPPED_Y if point.seconds is None else _height(point.seconds, low_s, top)
        body.append(_link(point.href, point.title, _mark(point.status, x, y)))
    return _svg("hub-scatter", _SCATTER_HEIGHT, label, "".join(body))


def _height(seconds: float, least: float, top: float) -> float:
    low = math.log10(least)
    share = (math.log10(max(seconds, least)) - low) / max(math.log10(top) - low, 0.5)
    return round(124 - 112 * share, 1)


def _grid_line(y: float) -> str:
    return f'<line class="hub-m-grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'


def _grid_text(y: float, text: str) -> str:
    return f'<text class="hub-m-text" x="-8" y="{round(y + 4, 1)}">{escape(text)}</text>'


_SHAPES = {
    "SUCCESS": '<circle r="2.5"/>',
    "FAILURE": '<path d="M-4-4L4 4M4-4L-4 4"/>',
    "LOST": '<path d="M0-5L5 0L0 5L-5 0Z"/>',
    "CANCELLED": '<path d="M-4 0H4"/>',
    "SKIPPED": '<circle r="3"/>',
    "RUNNING": '<circle r="4"/>',
    "QUEUED": '<circle r="2"/>',
}


def _mark(status: str, x: float, y: float) -> str:
    return f'<svg class="hub-m-{status.lower()}" x="{x}%" y="{y}" overflow="visible">{_SHAPES[status]}</svg>'


def progress(share: float | None, usual: float | None, label: str) -> Markup:
    """A bar filled to `share` with a line at `usual`, both 0 to 1; None: not known."""
    parts = ['<rect class="hub-m-hit" width="100%" height="8" rx="4"/>']
    if share is not None:
        width = round(min(share, 1) * 100, 1)
        parts.append(f'<rect class="hub-m-fill" width="{width}%" height="8" rx="4"/>')
    if usual is not None and usual <= 1:
        parts.append(f'<rect class="hub-m-usual" x="{round(usual * 99, 1)}%" y="0" width="2" height="8"/>')
    return _svg("hub-progress", 8, label, "".join(parts))


def _rect(x: float, y: float, width: float, height: float, status: str) -> str:
    name = status.lower() or "none"
    return f'<rect class="hub-m-{name}" x="{x}%" y="{y}" width="{width}%" height="{height}"/>'


def _link(href: str, title: str, body: str) -> str:
    """A mark that says something, and leads somewhere unless `href` is empty.

    Not a tab stop of its own: hundreds of them would bury the page.
    """
    said = f"<title>{html.escape(title)}</title>{body}"
    return f'<a href="{html.escape(href)}" tabindex="-1">{said}</a>' if href else f"<g>{said}</g>"


def _svg(name: str, height: int, label: str, body: str) -> Markup:
    """A picture; a group where its marks lead somewhere, which a picture's may not."""
    role, label = "group" if "<a " in body else "img", escape(label)
    return Markup(  # noqa: S704 - whatever is text was escaped
        f'<svg class="hub-svg {name}" width="100%" height="{height}" role="{role}" aria-label="{label}"'
        f' tabindex="0"><title>{label}</title>{body}</svg>'
    )
