"""What commands share: the database they work on, and who they are in the audit."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import asyncpg

from connecthub import daemon
from connecthub.config import Settings
from connecthub.errors import DatabaseError
from connecthub.storage.audit import Actor
from connecthub.storage.database import UNAVAILABLE, Database
from connecthub.storage.failures import unreachable

T = TypeVar("T")


def command_line() -> Actor:
    """Whoever types a command on this machine, for the audit: as the system names the process's user."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run as a number that has no name
        name = f"uid {uid}"
    return Actor(f"{name} (command line)", None)


def do(settings: Settings, action: Callable[[Database], Awaitable[T]]) -> T:
    """What `action` returns on the database of the settings, whose schema must be that of this version.

    Raises StartupError where that cannot be used, DatabaseError where it is lost meanwhile.
    """

    async def act() -> T:
        async with daemon.open_database(settings) as database:
            return await action(database)

    return complete(act())


def complete(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; what the database says in the middle of it is raised as a DatabaseError."""
    try:
        return asyncio.run(work)
    except BrokenPipeError:  # whoever reads what is printed has gone
        raise
    except UNAVAILABLE as error:
        raise DatabaseError(
            f"the database was lost meanwhile ({error or type(error).__name__}): see that it runs, and look "
            "whether the change was made before asking for it again"
        ) from None
    except asyncpg.PostgresError as error:
        raise unreachable(error) from None
