"""Drawings as SVG made on the server: sharp at every width, no script, no style attribute.

x and width are in percent and y and height in px, without a viewBox. Results differ by shape and height and
not by colour alone. Every text that comes from a Job goes through markupsafe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

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


@dataclass(frozen=True)
class Cell:
    """A stretch of time in a strip: the worst status in it ("" for none), what to say, and where it leads."""

    status: str
    title: str
    href: str


def strip(cells: Sequence[Cell], label: str) -> Markup:
    """A row of cells, oldest left: failures fill the height, successes are low, nothing is a thin line."""
    step = 100 / max(len(cells), 1)
    marks = Markup("").join(
        _link(cell.href, cell.title, _cell(cell.status, round(at * step, 3), round(step * 0.86, 3)))
        for at, cell in enumerate(cells)
    )
    return _svg("hub-strip", 24, label, marks)


def _cell(status: str, x: float, width: float) -> Markup:
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
    columns = Markup("").join(
        _link(hour.href, hour.title, _column(hour.counts, round(at * step, 3), round(step * 0.8, 3), top))
        for at, hour in enumerate(hours)
    )
    return _svg("hub-bars", _BARS_HEIGHT, label, columns)


def _column(counts: dict[str, int], x: float, width: float, top: int) -> Markup:
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
    return Markup("").join(parts)


@dataclass(frozen=True)
class Point:
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
    return _svg("hub-scatter", _SCATTER_HEIGHT, label, Markup("").join(body))


def _height(seconds: float, least: float, top: float) -> float:
    low = math.log10(least)
    share = (math.log10(max(seconds, least)) - low) / max(math.log10(top) - low, 0.5)
    return round(124 - 112 * share, 1)


def _grid_line(y: float) -> Markup:
    return Markup('<line class="hub-m-grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>').format(y=y)


def _grid_text(y: float, text: str) -> Markup:
    y = round(y + 4, 1)
    return Markup('<text class="hub-m-text" x="-8" y="{y}">{text}</text>').format(y=y, text=text)


_SHAPES = {
    "SUCCESS": '<circle r="2.5"/>',
    "FAILURE": '<path d="M-4-4L4 4M4-4L-4 4"/>',
    "LOST": '<path d="M0-5L5 0L0 5L-5 0Z"/>',
    "CANCELLED": '<path d="M-4 0H4"/>',
    "SKIPPED": '<circle r="3"/>',
    "RUNNING": '<circle r="4"/>',
    "QUEUED": '<circle r="2"/>',
}


def _mark(status: str, x: float, y: float) -> Markup:
    shape = _SHAPES.get(status, _SHAPES["QUEUED"])
    name = escape(status.lower())
    return Markup(f'<svg class="hub-m-{name}" x="{x}%" y="{y}" overflow="visible">{shape}</svg>')  # noqa: S704


def progress(share: float | None, usual: float | None, label: str) -> Markup:
    """A bar filled to `share` with a line at `usual`, both 0 to 1; None: not known."""
    parts = [Markup('<rect class="hub-m-hit" width="100%" height="8" rx="4"/>')]
    if share is not None:
        parts.append(
            Markup('<rect class="hub-m-fill" width="{}%" height="8" rx="4"/>').format(
                round(min(share, 1) * 100, 1)
            )
        )
    if usual is not None and usual <= 1:
        parts.append(
            Markup('<rect class="hub-m-usual" x="{}%" y="0" width="2" height="8"/>').format(
                round(usual * 99, 1)
            )
        )
    return _svg("hub-progress", 8, label, Markup("").join(parts))


# Thousands of marks are on one page: Markup.format, which looks at every value, would take most of its time.
def _rect(x: float, y: float, width: float, height: float, status: str) -> Markup:
    name = escape(status.lower() or "none")
    return Markup(f'<rect class="hub-m-{name}" x="{x}%" y="{y}" width="{width}%" height="{height}"/>')  # noqa: S704


def _link(href: str, title: str, body: Markup) -> Markup:
    """A mark that leads somewhere. Not a tab stop of its own: hundreds of them would bury the page."""
    return Markup(f'<a href="{escape(href)}" tabindex="-1"><title>{escape(title)}</title>{body}</a>')  # noqa: S704


def _svg(name: str, height: int, label: str, body: Markup) -> Markup:
    """A picture; a group where its marks lead somewhere, which a picture's may not."""
    return Markup(
        '<svg class="hub-svg {}" width="100%" height="{}" role="{}" aria-label="{}" tabindex="0">'
        "<title>{}</title>{}</svg>"
    ).format(name, height, "group" if "<a " in body else "img", label, label, body)
