"""The SDK of plugin authors: `from connecthub.plugins import BaseJob`."""

from connecthub.plugins.api import BaseJob, RunContext

__all__ = ["BaseJob", "RunContext"]
