"""How a migration runs the SQL file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op
from sqlalchemy.util import await_only


def run_script_of(migration: str) -> None:
    """Run the .sql file with the name of `migration` (its `__file__`) as one script, in alembic's transaction."""
    script = Path(migration).with_suffix(".sql").read_text(encoding="utf-8")
    driver: Any = op.get_bind().connection.driver_connection
    await_only(driver.execute(script))  # asyncpg takes a script only from its own `execute`
