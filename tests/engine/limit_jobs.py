"""Jobs that say, raise and return more, or worse, than any plugin should."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any

from connecthub.plugins import BaseJob
from tests.engine import sample_jobs

log = logging.getLogger("some.library")


class FloodJob(BaseJob):
    """Says 64 MB, in lines of 1 KiB or as one of them."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        line = "first " + "x" * 1_018
        if params["how"] == "lines":
            for _ in range(32_000):
                log.info(line)
                print(line)
        elif params["how"] == "logged":
            log.info("first " + "x" * 100_000_000 + secrets["password"])
        else:
            print("first " + "x" * 100_000_000 + secrets["password"])
        print("last")


class RaisesJob(BaseJob):
    """Raises what params.what names."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        raise {
            "stop": StopIteration("x"),
            "generator": GeneratorExit("x"),
            "exit": SystemExit("x"),
            "interrupt": KeyboardInterrupt("x"),
            "unshown": UnshownError(),
            "huge": ValueError("x" * 50_000_000),
            "lines": ValueError("x\n" * 25_000_000),
            "led to it": _after(ValueError("x\n" * 25_000_000)),
            "rubbish": ValueError("a\x00b\ud800c"),
            "slow": SlowError(),
        }[params["what"]]


class OddNotesJob(BaseJob):
    """Logs an exception whose notes are params.notes, and raises it."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        error = ValueError("noted oddly")
        error.__notes__ = params["notes"]
        try:
            raise error
        except ValueError:
            log.exception("could not")
            raise


def _after(cause: BaseException) -> BaseException:
    error = ValueError("after that")
    error.__cause__ = cause
    return error


class UnshownError(Exception):
    """Raises when it is shown."""

    def __str__(self) -> str:
        raise RuntimeError("not now")


class SlowError(Exception):
    """Takes until it is released when it is shown."""

    def __str__(self) -> str:
        sample_jobs.begun.set()
        sample_jobs.released.wait(30)
        return "at last"


class SlowLineJob(BaseJob):
    """Logs something that takes until it is released to become a text."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        log.info("it came %s", SlowError())


class ReturnsJob(BaseJob):
    """Returns what params.what names."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        deep: list[Any] = []
        for _ in range(params.get("deep", 0)):
            deep = [deep]
        ring: list[Any] = []
        ring += [ring, ring]
        values = {
            "huge": {"message": "m" * 50_000_000, "x": ["y" * 100] * 500_000},
            "keys": {1: "a", None: "b", False: "c"},
            "tuple keys": {(1, 2): "a"},
            "raises": Raising(a=1),
            "deep": deep,
            "ring": ring,
            "number": 10**5_000,
        }
        if params["what"] == "numbers":
            numbers: list[int] = []
            for first in range(0, 6_000_000, 100_000):  # in one go nobody else would get a turn
                numbers.extend(range(first, first + 100_000))
            return {"all": numbers}
        return values[params["what"]]


class Raising(dict[str, Any]):
    """A dict that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("no items")

    def __iter__(self) -> Any:
        raise RuntimeError("no iteration")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class SwallowJob(BaseJob):
    """Catches its cancellation until it is released."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        while not sample_jobs.released.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                sample_jobs.begun.set()
        return {"held": True}


class LateJob(BaseJob):
    """Leaves a thread behind that logs and prints after the run has ended."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        threading.Thread(target=self._later, daemon=True).start()
        print("in time")

    def _later(self) -> None:
        sample_jobs.released.wait(30)
        log.warning("too late")
        print("too late", file=sys.stderr)
        sample_jobs.begun.set()
