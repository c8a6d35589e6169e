"""The integration loop: one asyncio loop in one thread, and what lives as long as the process.

    plugin loops, plugin threads ──hand over──▶ the integration loop: connections, tokens, intervals

Plugins come and go with their runs, and each may live on another loop. What must outlive a run is here, once
per process: kept-alive connections, tokens, the interval between edits.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, ParamSpec, TypeVar

import httpx

from connecthub.errors import IntegrationError

P = ParamSpec("P")
T = TypeVar("T")

_END: Any = object()
_HELPERS = 1000  # threads that look up hosts, each started only where none is idle
# httpx logs every URL, query strings included; httpcore logs the headers of answers, cookies included.
_CHATTY = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy", "httpcore.socks")


@dataclass(frozen=True)
class Token:
    """A token as the other system gave it. `lifetime` in seconds, from each use where it is `sliding`."""

    value: str = field(repr=False)
    lifetime: float
    sliding: bool = False
    warning: str = ""  # what its users should be told


class TokenSlot:
    """The one token of one account, and the log-in that may be under way. For the integration loop only."""

    def __init__(self) -> None:
        self._token: Token | None = None
        self._expires_at = 0.0
        self._login: asyncio.Task[Token] | None = None
        self._waiting = 0

    async def get(self, log_in: Callable[[], Coroutine[Any, Any, Token]], *, dead: str, fresh: bool) -> Token:
        """The token, unless it is `dead`, too old, or a `fresh` one is asked for; then that of a new log-in.

        However many tasks ask, one log-in runs, and its outcome, an error too, is everyone's. It stops when
        nobody waits for it any more.
        """
        alive = self._token is not None and asyncio.get_running_loop().time() < self._expires_at
        if self._token is not None and alive and not fresh and self._token.value != dead:
            return self._token
        task = self._login = self._login or asyncio.create_task(self._renew(log_in))
        self._waiting += 1
        try:
            return await asyncio.shield(task)
        except IntegrationError as error:
            # A copy: the traceback of a shared one would grow with the frames of other runs.
            raise copy.copy(error) from None
        finally:
            self._waiting -= 1
            if task.done() or not self._waiting:
                task.cancel()
                self._login = None if self._login is task else self._login

    async def _renew(self, log_in: Callable[[], Coroutine[Any, Any, Token]]) -> Token:
        token = await log_in()
        self._token, self._expires_at = token, asyncio.get_running_loop().time() + token.lifetime
        return token

    def used(self, value: str) -> None:
        """The other system has just accepted `value`: a sliding lifetime begins anew."""
        if self._token is not None and self._token.sliding and self._token.value == value:
            self._expires_at = asyncio.get_running_loop().time() + self._token.lifetime


class Pacer:
    """One call at a time, and an interval after each answer. For the integration loop only."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._answered_at = float("-inf")

    @asynccontextmanager
    async def turn(self, interval: float) -> AsyncIterator[None]:
        """Wait until `interval` seconds have passed since the last answer, then make the call inside."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if (wait := self._answered_at + interval - loop.time()) > 0:
                await asyncio.sleep(wait + 0.001)  # timers may fire a clock tick early
            try:
                yield
            finally:
                self._answered_at = loop.time()


class Runtime:
    """The integration loop in its thread, and what lives as long as the process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Cookies would mix up the sessions of different accounts of one system; the token is enough.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.http = httpx.AsyncClient(cookies=no_cookies)
        self.slots: dict[tuple[str, ...], TokenSlot] = {}
        self.pacers: dict[tuple[str, ...], Pacer] = {}
        self._loop = asyncio.new_event_loop()
        # A few look-ups that hang in asyncio's own few threads would keep all others from finding a host.
        self._loop.set_default_executor(ThreadPoolExecutor(_HELPERS, "integrations-helper"))
        self._thread = threading.Thread(target=self._run_forever, name="integrations", daemon=True)
        for name in _CHATTY:
            logging.getLogger(name).addFilter(self._elsewhere)
        self._thread.start()

    def _run_forever(self) -> None:
        while True:
            # Of a caller's own code, such as its `mask`: it is the caller that gets it.
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()

    def _elsewhere(self, record: logging.LogRecord) -> bool:
        """Whether a log line of the HTTP library is about someone else's calls than ours."""
        return threading.current_thread() is not self._thread

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` on the integration loop, in the caller's context; cancelling the caller cancels it."""
        if asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Block this thread until `work` is done on the integration loop."""
        if _inside_a_loop():
            work.close()
            raise RuntimeError(
                "the synchronous face would block the event loop it is called on: await the method"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # where this thread was interrupted while it waited


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_runtime: Runtime | None = None
_runtime_lock = threading.Lock()


def runtime() -> Runtime:
    """The one of this process, started at first use. (A forked child has no such thread and gets its own.)"""
    global _runtime
    with _runtime_lock:
        if _runtime is None or _runtime.pid != os.getpid():
            _runtime = Runtime()
        return _runtime


def on_integration_loop(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Makes a client's method run on the integration loop, whichever loop awaits it."""

    @functools.wraps(method)
    async def handed_over(*args: P.args, **kwargs: P.kwargs) -> T:
        return await runtime().run(method(*args, **kwargs))

    return handed_over


class SyncFace:
    """An object's async methods under the same names, blocking: coroutines return, iterators iterate."""

    def __init__(self, client: object) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        if inspect.isasyncgenfunction(method):
            return lambda *args, **kwargs: _iterate(method(*args, **kwargs))
        if inspect.iscoroutinefunction(method):
            return lambda *args, **kwargs: runtime().wait(method(*args, **kwargs))
        raise AttributeError(f"{type(self._client).__name__}.{name} is no asynchronous method")


def _iterate(rows: AsyncGenerator[T, None]) -> Iterator[T]:
    async def following() -> T:
        return await anext(rows, _END)

    try:
        while (row := runtime().wait(following())) is not _END:
            yield row
    finally:
        runtime().wait(rows.aclose())
