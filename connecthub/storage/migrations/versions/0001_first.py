"""The first schema: Jobs with their revisions, runs, users, audit.

Rules that SQL can say stand here and not in Python: one run per Job and fire time, one next attempt per
attempt, a revision per saved definition, what a change of the schedule means, what deletion takes with it.
"""

from pathlib import Path
from typing import Any

from alembic import op
from sqlalchemy.util import await_only

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run 0001_first.sql as one script, which asyncpg takes only from its own `execute`."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    driver: Any = op.get_bind().connection.driver_connection
    await_only(driver.execute(script))
