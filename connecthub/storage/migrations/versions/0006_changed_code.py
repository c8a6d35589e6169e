"""What hubs say of plugin files that have changed since they were loaded."""

from connecthub.storage.migrations.script import run_script_of

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run 0006_changed_code.sql."""
    run_script_of(__file__)
