"""What both stand-ins share: a real HTTP server in a thread, scripted answers, held calls, inspection."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


@dataclass(frozen=True)
class Fault:
    """An answer given instead of the right one: JSON where `body` is no text."""

    status: int = 200
    body: Any = ""

    def response(self) -> Response:
        kind = PlainTextResponse if isinstance(self.body, str) else JSONResponse
        return kind(self.body, status_code=self.status)


class _Server(uvicorn.Server):
    """Stops at once instead of in 0.2 s: tests start and stop many."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.sleep(0)


def _listening(port: int) -> socket.socket:
    # asyncio switches Nagle's delay of 40 ms per answer off only where the protocol is named.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    return listening


class Standin:
    """A system on loopback. `with` starts and stops it; its attributes may be read and set meanwhile.

    `GET /_standin/state` gives `state()` as JSON, `POST /_standin/switches` sets switches by name,
    `POST /_standin/expire` makes all tokens invalid: for tests whose subject is another process.
    """

    paths: ClassVar[dict[str, str]]  # path -> method
    switches: Any  # a dataclass instance

    def __init__(self, port: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        self.violations: list[str] = []
        self.tokens: set[str] = set()
        self.peers: set[Any] = set()  # the connections that calls came over
        self.hold = ""  # the path whose calls wait for `release`
        self.held = threading.Event()  # such a call came
        self.dropped = threading.Event()  # and the caller hung up
        self._gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._faults: dict[str, deque[Fault | None]] = {}
        self._socket = _listening(port)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = _Server(
            uvicorn.Config(self._app(), lifespan="off", log_config=None, log_level="warning")
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()  # the socket listens already: callers wait in its queue until the server is up
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.stop.set)
        self._thread.join()
        self._socket.close()

    def fail_next(self, path: str, *faults: Fault | None) -> None:
        """The next calls of `path` get these answers, one each; None is the right answer."""
        self._faults.setdefault(path, deque()).extend(faults)

    def release(self) -> None:
        """Answer what is held, and hold no more."""
        self.hold = ""
        for loop, gate in self._gates:
            loop.call_soon_threadsafe(gate.set)

    def state(self) -> dict[str, Any]:
        return {"calls": dict(self.calls), "violations": self.violations, "switches": asdict(self.switches)}

    async def answer(self, path: str, request: Request) -> Response:
        """The right answer of the system."""
        raise NotImplementedError

    async def respond(self, path: str, request: Request) -> Response:
        """A scripted answer where there is one, else the right one."""
        faults = self._faults.get(path)
        fault = faults.popleft() if faults else None
        return fault.response() if fault else await self.answer(path, request)

    def _app(self) -> Starlette:
        routes = [Route(path, self._endpoint, methods=[method]) for path, method in self.paths.items()]
        return Starlette(
            routes=[
                *routes,
                Route("/_standin/state", self._show),
                Route("/_standin/switches", self._switch, methods=["POST"]),
                Route("/_standin/expire", self._expire, methods=["POST"]),
            ]
        )

    def _serve(self) -> None:
        self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        self._loop.close()

    async def _endpoint(self, request: Request) -> Response:
        path = request.url.path
        self.calls[path] += 1
        self.peers.add(request.client)
        await request.body()
        if path == self.hold:
            await self._held(request)
        return await self.respond(path, request)

    async def _held(self, request: Request) -> None:
        gate, gone = asyncio.Event(), asyncio.ensure_future(request.receive())
        self._gates.append((asyncio.get_running_loop(), gate))
        opened = asyncio.ensure_future(gate.wait())
        self.held.set()
        await asyncio.wait({opened, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.dropped.set()
        opened.cancel()
        gone.cancel()

    async def _show(self, _: Request) -> Response:
        return JSONResponse({"time": time.time(), **self.state()})

    async def _switch(self, request: Request) -> Response:
        for name, value in (await request.json()).items():
            if not hasattr(self.switches, name):
                return JSONResponse({"error": f"no switch is named {name}"}, status_code=400)
            setattr(self.switches, name, value)
        return JSONResponse(asdict(self.switches))

    async def _expire(self, _: Request) -> Response:
        self.tokens.clear()
        return JSONResponse({})
