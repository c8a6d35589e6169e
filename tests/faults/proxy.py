"""A TCP proxy before PostgreSQL that drops, delays, cuts, and swallows the answer to a statement."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Proxy:
    """Listens at `port` on 127.0.0.1 and hands on to a Unix socket, in a thread of its own.

    `passes` false: nothing is handed on in either direction, and nothing is closed (a network that drops).
    `refuses`: new connections are closed at once. `delay_s` comes before each piece that is handed on.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._passes = asyncio.Event()
        self._open: set[_Link] = set()
        self.refuses = False
        self.delay_s = 0.0
        # Parts of statements that come one after another on a connection: the last one's answer is dropped.
        self.swallow: list[str] = []
        self.swallowed = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port: int = self._do(self._listen())

    def drop(self) -> None:
        """From now on nothing arrives anywhere."""
        self._loop.call_soon_threadsafe(self._passes.clear)

    def hand_on(self) -> None:
        """What waits arrives, and so does what comes."""
        self._loop.call_soon_threadsafe(self._passes.set)

    def deafen(self) -> None:
        """From now on what the connections that LISTEN say and are told gets lost, and nobody closes them."""

        async def deafen() -> None:
            for link in self._open:
                link.is_deaf = link.listens

        self._do(deafen())

    def cut(self, most: int | None = None) -> int:
        """Cut `most` of the connections, the oldest first, or all; how many."""

        async def cut() -> int:
            chosen = sorted(self._open, key=lambda link: link.number)[:most]
            for link in chosen:
                link.close()
            return len(chosen)

        number: int = self._do(cut())
        return number

    def close(self) -> None:
        """End it with all its connections."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _do(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(10)

    async def _listen(self) -> int:
        self._passes.set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            server = await asyncio.open_unix_connection(self._upstream)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), server)
        self._open.add(link)
        await link.run()
        self._open.discard(link)

    async def may_pass(self) -> None:
        """Returns when something may be handed on."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._passes.wait()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One client's connection and the server's end of it."""

    _count = 0

    def __init__(self, proxy: Proxy, client: Streams, server: Streams) -> None:
        _Link._count += 1
        self.number = _Link._count
        self._proxy = proxy
        self._client, self._server = client, server
        self._statements: dict[bytes, bytes] = {}
        self._swallowing = False
        self._wanted: list[str] = []
        self._seen = 0  # how many of the parts to swallow after have come
        self._ahead = b""
        self.listens = self.is_deaf = False

    async def run(self) -> None:
        await asyncio.gather(
            self._pump(self._client[0], self._server[1], self._heard_from_client),
            self._pump(self._server[0], self._client[1], self._heard_from_server),
        )

    def close(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Callable[[bytes], bool]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._proxy.may_pass()
                if heard(data) and not self.is_deaf:
                    writer.write(data)
                    await writer.drain()
        self.close()

    def _heard_from_client(self, data: bytes) -> bool:
        """Look for the statement to swallow; a message may come in pieces."""
        self._ahead += data
        while message := self._next_message():
            kind, body = message
            if kind == b"Q":
                self._look(body)
            elif kind == b"P":
                name, statement = body.split(b"\0")[:2]
                self._statements[name] = statement
            elif kind == b"B":
                self._look(self._statements.get(body.split(b"\0")[1], b""))
        return True

    def _next_message(self) -> tuple[bytes, bytes] | None:
        if len(self._ahead) < 5:
            return None
        if self._ahead[0] == 0:  # the greeting has no kind
            length = struct.unpack("!I", self._ahead[:4])[0]
            kind, begin = b"-", 4
        else:
            length = struct.unpack("!I", self._ahead[1:5])[0] + 1
            kind, begin = self._ahead[:1], 5
        if len(self._ahead) < length:
            return None
        body, self._ahead = self._ahead[begin:length], self._ahead[length:]
        return kind, body

    def _look(self, statement: bytes) -> None:
        self.listens |= statement.startswith(b"LISTEN")
        wanted = self._proxy.swallow
        if wanted is not self._wanted:
            self._wanted, self._seen = wanted, 0
        if not wanted or wanted[self._seen].encode() not in statement:
            return
        self._seen += 1
        if self._seen == len(wanted):
            self._proxy.swallow = []
            self._swallowing = True

    def _heard_from_server(self, data: bytes) -> bool:
        if not self._swallowing:
            return True
        if data[-6:-1] == b"Z\0\0\0\x05":  # ReadyForQuery: the server has done it
            self._proxy.swallowed.set()
            self.close()
        return False
