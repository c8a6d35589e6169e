"""People: roles and preferences of accounts, limits of sessions, and wrong log-ins to throttle by."""

from connecthub.storage.migrations.script import run_script_of

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run 0003_people.sql."""
    run_script_of(__file__)
