"""Jobs that run in a process of their own. Nothing of the tests' own process is to be seen here."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from connecthub.plugins import BaseJob

log = logging.getLogger("some.library")


class ProcessJob(BaseJob):
    """What the others here derive from."""

    isolation: ClassVar[Literal["thread", "process"]] = "process"


class TellJob(ProcessJob):
    """Logs from everywhere, and returns what it sees of the run and of its process."""

    isolation = "process"

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        log.info("logged %s", params)
        print("printed")
        print("on stderr", file=sys.stderr)
        thread = threading.Thread(target=log.info, args=("in a thread",))
        thread.start()
        thread.join()
        os.write(1, b"by its descriptor\n")
        subprocess.run(["echo", "of a command"], check=True)
        self.ctx.progress(2, 5)
        log.warning("look out")
        print("unfinished", end="")
        ctx = self.ctx
        return {
            "params": params,
            "context": [ctx.run_id, ctx.job_id, ctx.attempt, ctx.trigger, ctx.idempotency_key],
            "scheduled_for": ctx.scheduled_for,
            "cancelled": ctx.cancelled,
            "pid": os.getpid(),
            "hub": os.getppid(),
            "message": "told",
        }


class AsyncTellJob(ProcessJob):
    """The same as a coroutine, in short."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        await asyncio.to_thread(log.info, "logged %s", params)
        return {"params": params, "pid": os.getpid()}


class LeakJob(ProcessJob):
    """Says its secrets in every way, and looks for them where others could."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        password = secrets["password"]
        print("printed", password)
        log.warning("logged %r", password)
        os.write(2, f"written {password}\n".encode())
        self.ctx.mask("token-got-later")
        os.write(1, b"written token-got-later\n")
        log.info("token-got-later")
        seen = Path("/proc/self/cmdline").read_bytes() + Path("/proc/self/environ").read_bytes()
        if params.get("fail"):
            raise ValueError(f"refused {password}")
        return {
            "echo": password,
            "message": f"with {password}",
            "seen": password.encode() in seen,
            "environ": [name for name in os.environ if "CONNECTHUB" in name.upper()],
        }


class WaitJob(ProcessJob):
    """Waits on its loop until it is cancelled."""

    async def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.ctx.progress(os.getpid())
        try:
            await asyncio.sleep(3600)
        finally:
            print("tidied up")


class PoliteJob(ProcessJob):
    """Looks at ctx.cancelled."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        self.ctx.progress(os.getpid())
        while not self.ctx.cancelled:
            time.sleep(0.02)
        return {"stopped": True}


class StubbornJob(ProcessJob):
    """Heeds nothing, and has a child of its own that heeds nothing; tells both process ids."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 3600; done"])
        self.ctx.progress(os.getpid(), child.pid)
        while not params.get("leave"):
            time.sleep(0.1)
        return {"child": child.pid}


class WriterJob(ProcessJob):
    """Leaves behind what has left its group, keeps its pipe and writes for ever; tells both process ids."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        if sys.platform == "linux":  # so much that the hub is never through with it before more has come
            fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
        writer = subprocess.Popen(["yes"], start_new_session=True)
        self.ctx.progress(os.getpid(), writer.pid)
        return {"writer": writer.pid}


class DieJob(ProcessJob):
    """Ends its process in the way of params.how."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        print("last words")
        match params["how"]:
            case "_exit":
                os._exit(7)
            case "segfault":
                ctypes.string_at(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                sys.exit("enough")
            case "interrupt":
                raise KeyboardInterrupt
            case "stop":
                raise StopIteration
            case "close":
                os.closerange(0, 200)
            case "rubbish":
                for fd in range(3, 200):
                    try:
                        os.write(fd, b"\xff" * 100)
                    except OSError:
                        continue
                time.sleep(3600)


class FatJob(ProcessJob):
    """Takes more and more memory."""

    memory_mb = 200

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        if params.get("little"):
            return len(bytearray(50 << 20))
        taken = []
        while True:
            taken.append(bytearray(10 << 20))


class HugeJob(ProcessJob):
    """Returns, prints and writes more than fits."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        for _ in range(400):
            os.write(1, os.urandom(10_000))
        sys.stdout.write("x" * 2_000_000)
        log.info("y" * 2_000_000)
        return {"huge": "x" * 50_000_000}


class BadValueJob(ProcessJob):
    """Returns what is no JSON."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        return {"at": object()}


class AlarmJob(ProcessJob):
    """Prints at each alarm, wherever it is: also where it is sending what it has logged."""

    def run(self, params: dict[str, Any], secrets: dict[str, Any]) -> Any:
        alarms = 0

        def alarm(number: int, frame: Any) -> None:
            nonlocal alarms
            print("alarm")
            alarms += 1

        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(300):
            log.info("x" * 150_000)  # more than the socket takes in one go
        before = alarms
        while alarms == before:  # the log keeps its end, and may keep no other
            signal.pause()
        signal.setitimer(signal.ITIMER_REAL, 0)
