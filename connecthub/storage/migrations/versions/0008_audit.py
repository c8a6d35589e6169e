"""The audit cannot be emptied in one go either."""

from connecthub.storage.migrations.script import run_script_of

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run 0008_audit.sql."""
    run_script_of(__file__)
