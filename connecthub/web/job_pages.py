"""The pages of Jobs, put together: their routes, for the admin to take in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.routing import BaseRoute

from connecthub.config import Settings
from connecthub.definitions.check import Checker
from connecthub.plugins.discover import Catalogue
from connecthub.security.vault import Vault
from connecthub.storage.database import Database
from connecthub.web.job_actions import JobActions
from connecthub.web.job_edit import JobEditor
from connecthub.web.job_views import JobAdmin


def job_routes(
    settings: Settings,
    database: Database,
    vault: Vault,
    page: Callable[..., Awaitable[Response]],
    part: Callable[..., str],
) -> list[BaseRoute]:
    """The routes, and its tools for JobAdmin. `page` renders a template in the frame, `part` without it."""
    catalogue = Catalogue(settings.plugins.packages, settings.plugin_path)
    JobAdmin.catalogue, JobAdmin.vault = catalogue, vault
    JobAdmin.kept_days = settings.retention.days
    return [
        *JobActions(database, vault, catalogue, page).routes(),
        *JobEditor(settings, database, vault, Checker(settings, vault, catalogue), page, part).routes(),
    ]
