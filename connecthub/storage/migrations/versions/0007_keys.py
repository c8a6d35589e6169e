"""Keys can be rotated under running hubs."""

from connecthub.storage.migrations.script import run_script_of

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run 0007_keys.sql."""
    run_script_of(__file__)
