"""What the model views of SQLAdmin share."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from sqladmin import ModelView
from sqladmin.pagination import Pagination
from sqlalchemy import Select, func, select
from starlette.exceptions import HTTPException
from starlette.requests import Request

from connecthub.storage.database import Database

_COUNTED = 10_000  # counting all of a million rows would make each page slow
_INT8 = 2**63 - 1


class HubView(ModelView):
    """Lists without SQLAdmin's count of all rows, and pages without its tables of all columns."""

    database: ClassVar[Database]
    page_size = 50
    page_size_options: ClassVar[list[int]] = [20, 50, 100]
    can_export = False
    can_import = False
    counted: ClassVar[int] = _COUNTED

    def rows_query(self, request: Request) -> Select[Any]:
        """The rows that match the request's filters, in the order of the list."""
        raise NotImplementedError

    async def list_context(self, request: Request) -> dict[str, Any]:
        """What the template of the list gets."""
        return {"pagination": await self.list(request)}

    async def list(self, request: Request) -> Pagination:
        """One page of the rows; `count` ends just above `counted`."""
        asked = request.query_params
        size = self.validate_page_number(asked.get("pageSize"), self.page_size)
        size = min(max(size, 1), max(self.page_size_options))
        page = max(self.validate_page_number(asked.get("page"), 1), 1)
        query = self.rows_query(request)
        capped = query.with_only_columns(*self.pk_columns).order_by(None).limit(_COUNTED + 1)
        counting = select(func.count()).select_from(capped.subquery())
        async with self.session_maker() as session:
            count = (await session.execute(counting)).scalar_one()
            page = min(page, Pagination.max_page(count, size))
            rows = (await session.scalars(query.limit(size).offset((page - 1) * size))).all()
        return Pagination(rows=list(rows), page=page, page_size=size, count=count)


def run_number(text: str) -> int:
    """The number of a run in a path; 400 where it is none, 404 where no run can have it."""
    if not (text.isascii() and text.isdigit()):
        raise HTTPException(400, "bad_number")
    if len(text) > 19 or int(text) > _INT8:
        raise HTTPException(404, "not_found")
    return int(text)


def edge(text: str) -> int | None:
    """The id that a page goes on from, None for none; 400 where it is no number."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HTTPException(400, "bad_number")
    return min(int(text[:19]), _INT8)


def pretty(text: str | None) -> str:
    """JSON text as people read it."""
    return "" if text is None else json.dumps(json.loads(text), ensure_ascii=False, indent=2)
