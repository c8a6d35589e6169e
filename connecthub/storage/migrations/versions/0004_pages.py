"""What the pages of the admin read at a million runs: indexes of what is rare, and of time."""

from connecthub.storage.migrations.script import run_script_of

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run 0004_pages.sql."""
    run_script_of(__file__)
