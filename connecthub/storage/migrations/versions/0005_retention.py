"""What retention did last, and which hub is at it."""

from connecthub.storage.migrations.script import run_script_of

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run 0005_retention.sql."""
    run_script_of(__file__)
