"""Plugins of the benchmarks."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from connecthub.plugins import BaseJob

log = logging.getLogger(__name__)


class NothingJob(BaseJob):
    """Does nothing, on the plugin loop."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> None:
        pass


class StampedJob(BaseJob):
    """Returns when it began, by the clock of this machine."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> dict[str, float]:
        return {"at": time.time()}


class NothingThreadJob(BaseJob):
    """Does nothing, in a thread."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> None:
        pass


class WaitJob(BaseJob):
    """Waits params["seconds"] on the plugin loop."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> None:
        await asyncio.sleep(params["seconds"])


class WaitThreadJob(BaseJob):
    """Waits params["seconds"] in a thread."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> None:
        time.sleep(params["seconds"])


class SecretJob(BaseJob):
    """Logs its secret, and returns it."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
        log.info("signed in with %s", secrets["token"])
        return {"token": secrets["token"]}


class LogJob(BaseJob):
    """Logs params["lines"] lines."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> None:
        for number in range(params["lines"]):
            log.info("line %d of a run that has much to say", number)
