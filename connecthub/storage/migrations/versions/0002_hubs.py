"""The hubs that are and were: when each started, was last alive and stopped."""

from connecthub.storage.migrations.script import run_script_of

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run 0002_hubs.sql."""
    run_script_of(__file__)
