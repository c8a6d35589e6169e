"""HTTP clients of outside systems, for plugins."""

from connecthub.integrations.didi import DidiClient
from connecthub.integrations.seeyon import ExportQuery, ExportRow, SeeyonClient

__all__ = ["DidiClient", "ExportQuery", "ExportRow", "SeeyonClient"]
