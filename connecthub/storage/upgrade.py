"""Runs the migrations, through alembic. Imported only where there is something to do: it takes long, and memory."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from connecthub.errors import DatabaseError
from connecthub.storage import adoption
from connecthub.storage.database import CONNECT_TIMEOUT_S, UNAVAILABLE, alchemy_engine
from connecthub.storage.failures import unreachable
from connecthub.storage.schema import MIGRATION_LOCK, MIGRATIONS, newer_schema_error

log = logging.getLogger(__name__)


async def upgrade(dsn: str) -> None:
    """Bring the schema up to date, adopting an older system's; hubs that start at once wait for each other.

    Raises DatabaseError where the database cannot be reached or its schema is newer than this version.
    """
    engine = alchemy_engine(partial(asyncpg.connect, dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0))
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            driver: Any = (await connection.get_raw_connection()).driver_connection
            adopts = await adoption.is_due(driver)
            if adopts:
                log.warning("adopting the database of the system before: a million runs take some minutes")
                await adoption.run(driver, "before")
            await connection.run_sync(_to_head)
            if adopts:
                await adoption.run(driver, "after")
                await adoption.tell(driver)
    except CommandError:  # a revision that is not among the migrations here
        raise newer_schema_error() from None
    except asyncpg.LockNotAvailableError:
        raise DatabaseError(
            "database cannot be adopted: the system before ConnectHub still uses it; stop all of it, its workers "
            "too, then start again"
        ) from None
    except (*UNAVAILABLE, asyncpg.PostgresError, DBAPIError) as error:
        raise unreachable(error.orig if isinstance(error, DBAPIError) and error.orig else error) from None
    finally:
        await engine.dispose()


def _to_head(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
