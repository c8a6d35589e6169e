"""The first schema: Jobs with their revisions, runs, users, audit.

Rules that SQL can say stand here and not in Python: one run per Job and fire time, one next attempt per
attempt, a revision per saved definition, what a change of the schedule means, what deletion takes with it.
"""

from connecthub.storage.migrations.script import run_script_of

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run 0001_first.sql."""
    run_script_of(__file__)
