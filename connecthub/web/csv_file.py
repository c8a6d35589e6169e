"""CSV that a spreadsheet shows as text, whatever somebody wrote into it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence

from starlette.responses import Response, StreamingResponse

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def defused(value: object) -> str:
    """`value` as a cell that no spreadsheet takes for a formula; None is empty."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """`rows` as lines of CSV."""
    text = io.StringIO()
    csv.writer(text).writerows([defused(value) for value in row] for row in rows)
    return text.getvalue()


def csv_response(
    name: str, header: Sequence[str], batches: AsyncIterable[Iterable[Sequence[object]]]
) -> Response:
    """A file to download, sent as its `batches` of rows come; UTF-8 with the mark that Excel needs."""

    async def text() -> AsyncIterator[str]:
        yield "\ufeff" + csv_lines([header])
        async for rows in batches:
            yield csv_lines(rows)

    return StreamingResponse(
        text(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
