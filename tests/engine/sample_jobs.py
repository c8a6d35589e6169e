"""Jobs that the tests of the engine run."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from connecthub.plugins import BaseJob

log = logging.getLogger("some.library")
released = threading.Event()  # what holds HoldJob and BlockJob
begun = threading.Event()
calls: list[int] = []  # the runs of CountedJob and LargeJob


class EchoJob(BaseJob):
    """Returns what it was given."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        log.info("echo %s", params)
        return {"params": params, "attempt": self.ctx.attempt, "key": self.ctx.idempotency_key}


class ThreadEchoJob(BaseJob):
    """The same in a thread."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        log.info("echo %s", params)
        return {"params": params}


class CountedJob(BaseJob):
    """Tells in this process that it was called."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        calls.append(self.ctx.run_id)


class FailJob(BaseJob):
    """Fails until its attempt number reaches params.until."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        if self.ctx.attempt < params.get("until", 99):
            raise ValueError("no luck")
        return {"message": "made it"}


class HoldJob(BaseJob):
    """Waits in a thread until it is released or cancelled."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        log.info("holding, with %s", secrets)
        log.info("a line\n" * params.get("lines", 1))
        begun.set()
        self.ctx.progress(1, 3)
        while not released.wait(0.02):
            if self.ctx.cancelled and not params.get("stubborn"):
                return {"stopped": True}
        return {"held": True}


class HelpersJob(BaseJob):
    """Waits in `params.threads` helper threads of its loop until it is released, and asks one more."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        waits = [asyncio.to_thread(released.wait, 100) for _ in range(params["threads"])]
        begun.set()
        await asyncio.gather(*waits, asyncio.to_thread(len, ""))


class CollectedJob(BaseJob):
    """Leaves a task and an object that only the garbage collector finds, and that fail with its secret."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> None:
        class Client:
            async def begin(self) -> None:
                self.task = asyncio.create_task(self.read())
                await asyncio.sleep(0)

            async def read(self) -> None:
                raise ConnectionError(f"GET /?token={secrets['token']}")

            def __del__(self) -> None:
                raise ValueError(secrets["token"])

        asyncio.run(Client().begin())


class WaitJob(BaseJob):
    """Waits on its loop until it is cancelled."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        begun.set()
        await asyncio.sleep(params.get("seconds", 3600))


class BlockJob(BaseJob):
    """Blocks its event loop until it is released, or for so many seconds."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        begun.set()
        released.wait(params.get("seconds", 60))


class FactoryJob(BaseJob):
    """Leaves its event loop with a way of its own to make tasks."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        asyncio.get_running_loop().set_task_factory(_make_no_task)


def _make_no_task(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError


class ExitJob(BaseJob):
    """Ends in ways that no event loop likes."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "stop": StopAsyncIteration}[params["how"]](
            "x"
        )


class LargeJob(BaseJob):
    """Returns much, once it is released, and tells in this process that it was called."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        calls.append(self.ctx.run_id)
        released.wait(60)
        return {"text": "x" * 400_000}


class ReturnJob(BaseJob):
    """Returns things that are no JSON."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        return {
            "nan": float("nan"),
            "nul": "a\x00b",
            "path": r"C:\u0000dir",
            "object": object(),
            "surrogate": "a\ud800b",
            "large": "x" * 3_000_000,
        }[params["what"]]


class RawError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise SystemExit(3)


class LeftBehindJob(BaseJob):
    """Leaves tasks behind that fail after it has returned, one of them with a secret in its words."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        loop.call_soon(_fail, ValueError(f"refused {secrets['password']}"))
        loop.call_soon(_fail, SystemExit(1))
        raise RawError


def _fail(error: BaseException) -> None:
    raise error


class LeakJob(BaseJob):
    """Says its secrets wherever it can."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        password = secrets["password"]
        print("printed", password)
        log.warning("logged %r", password)
        lone = logging.getLogger("client.lone")
        lone.propagate = False
        lone.info("by a logger that does not propagate, %s", password)
        logging.getLogger(f"client.{password}\nforged").info("by a logger of that name")
        self.ctx.mask("token-got-later")
        log.info("token-got-later")
        if params.get("fail"):
            raise ValueError(f"refused {password}")
        return {"echo": password, "message": f"with {password}"}


class ChattyJob(BaseJob):
    """Logs from everywhere: code, print, threads, executors, tasks."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        mark = params["mark"]
        log.info("%s logged", mark)
        print(mark, "printed")
        print(mark, "on stderr", file=sys.stderr)
        print(mark, "unfinished", end="")
        thread = threading.Thread(target=log.info, args=("%s thread", mark))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as executor:
            executor.submit(log.info, "%s executor", mark).result()
        for number in range(params.get("lines", 0)):
            log.info("%s line %d", mark, number)
        asyncio.run(self._task(mark))

    async def _task(self, mark: str) -> None:
        await asyncio.gather(asyncio.to_thread(log.info, "%s to_thread", mark))
        await asyncio.create_task(self._log(mark))

    async def _log(self, mark: str) -> None:
        log.info("%s task", mark)
        time.sleep(0)  # noqa: ASYNC251  # a plugin may do so
