"""Jobs of the fault suite: each tells an outside witness, a file, when its code begins and ends."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from connecthub.plugins import BaseJob

log = logging.getLogger(__name__)


class _Witnessed(BaseJob):
    """`params["witness"]` is the file; one line of JSON per event, whole or not at all, on disk at once."""

    hub = staticmethod(os.getpid)

    def tell(self, params: dict[str, Any], event: str) -> None:
        line = {
            "event": event,
            "run_id": self.ctx.run_id,
            "job_id": self.ctx.job_id,
            "key": self.ctx.idempotency_key,
            "attempt": self.ctx.attempt,
            "pid": self.hub(),
            "at": time.time(),
        }
        handle = os.open(params["witness"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, json.dumps(line).encode() + b"\n")
        os.fsync(handle)
        os.close(handle)

    def result(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.ctx.attempt < params.get("fails", 0) + 1:
            self.tell(params, "fails")
            raise ValueError("as it was told to")
        self.tell(params, "end")
        return {"key": self.ctx.idempotency_key, "attempt": self.ctx.attempt}


class AsyncJob(_Witnessed):
    """Waits `seconds` on its loop."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        log.info("begun with %s", secrets)
        try:
            await asyncio.sleep(params.get("seconds", 0))
        except asyncio.CancelledError:
            self.tell(params, "stopped")
            raise
        return self.result(params)


class ThreadJob(_Witnessed):
    """Waits `seconds` in a thread, and looks whether it should stop unless it is `stubborn`."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        log.info("begun with %s", secrets)
        end = time.monotonic() + params.get("seconds", 0)
        while time.monotonic() < end:
            if self.ctx.cancelled and not params.get("stubborn"):
                self.tell(params, "stopped")
                return {"stopped": True}
            time.sleep(0.01)
        return self.result(params)


class WaitForFileJob(_Witnessed):
    """Goes on, in a thread, until the file `params["until"]` is there."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        log.info("begun with %s %s", secrets, params.get("says", ""))
        while not Path(params["until"]).exists():
            if self.ctx.cancelled and not params.get("stubborn"):
                self.tell(params, "stopped")
                return {"stopped": True}
            time.sleep(0.01)
        return self.result(params)


class BlockingJob(_Witnessed):
    """An async plugin that blocks its event loop for `seconds`."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        time.sleep(params["seconds"])  # noqa: ASYNC251  # this is the fault
        return self.result(params)


class HubBlockingJob(_Witnessed):
    """Blocks the hub's own event loop for `seconds`, from a thread."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        while not isinstance(loop := frame.f_locals.get("self"), asyncio.AbstractEventLoop):
            assert frame.f_back is not None
            frame = frame.f_back
        loop.call_soon_threadsafe(time.sleep, params["seconds"])
        self.tell(params, "begin")
        return self.result(params)


class SwallowJob(_Witnessed):
    """An async plugin that swallows every cancellation for `seconds`."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        end = time.monotonic() + params["seconds"]
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                self.tell(params, "swallowed")
        return self.result(params)


class ExitJob(_Witnessed):
    """Raises what `params["what"]` names."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        kinds: list[type[BaseException]] = [SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit]
        raise {kind.__name__: kind for kind in kinds}[params["what"]]("bye")


class ForkJob(_Witnessed):
    """Forks children, as multiprocessing does, and tells each at once to end."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        ended = []
        for _ in range(params["children"]):
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()
            child.join()
            ended.append(child.exitcode)
        return {**self.result(params), "ended": ended}


class FloodJob(_Witnessed):
    """Logs `lines` lines of 1 KiB, and one of `bytes`."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.tell(params, "begin")
        for number in range(params["lines"]):
            log.info("line %d %s", number, "x" * 1000)
        log.info("x" * params["bytes"])
        return self.result(params)


class ProcessJob(ThreadJob):
    """The same in a child process."""

    isolation = "process"
    hub = staticmethod(os.getppid)
