"""ConnectHub: an integration hub in one asyncio process and one PostgreSQL."""

__version__ = "0.1.0"
