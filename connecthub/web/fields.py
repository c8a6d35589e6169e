"""Reading posted forms."""

from __future__ import annotations

from uuid import UUID

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

_LARGEST_FIELD = 4 * 1024 * 1024


async def read_form(request: Request) -> dict[str, str]:
    """The text fields of a posted form; 400 for what is none or holds what PostgreSQL cannot store."""
    form: FormData = await request.form(max_fields=1000, max_files=0, max_part_size=_LARGEST_FIELD)
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    if not all(is_storable(value) for value in fields.values()):
        raise HTTPException(400, "bad_request")
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


def token_of(form: dict[str, str]) -> UUID | None:
    """What tells one showing of a form from the next, so that it is obeyed once; None without."""
    try:
        return UUID(form.get("token", ""))
    except ValueError:
        return None


def id_of(form: dict[str, str], name: str) -> int | None:
    """The id of a row that a field holds, None for none."""
    text = form.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold it: no U+0000 and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
