"""The audit: who did what to what, from where. Rows are added in the transaction of the change itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connecthub.storage.database import Connected

_RECORD = """
INSERT INTO audit (username, action, object, address, detail) VALUES ($1, $2, $3, $4, $5::jsonb)
"""


@dataclass(frozen=True)
class Actor:
    """Who does something, and from which address (None: from the command line)."""

    username: str
    address: str | None


async def record(
    connection: Connected,
    username: str,
    action: str,
    object: str,
    address: str | None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Add one row. `detail` must never hold a secret: of secret_cfg only the names of its keys."""
    text = json.dumps(detail or {}, ensure_ascii=False)
    await connection.execute(_RECORD, username, action, object, address, text)
