"""What the clients of outside systems share: one token, one refresh, bounded retries, errors by cause."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

import httpx

from connecthub.errors import (
    AccessError,
    ConfigurationError,
    CredentialsError,
    DataError,
    IntegrationError,
    RateError,
    RemoteError,
)
from connecthub.integrations.loop import SyncFace, Token, TokenSlot, on_integration_loop, runtime
from connecthub.security.redaction import Masker

log = logging.getLogger(__name__)

T = TypeVar("T")

# What may stand in a header: a token of other characters would be quoted in the error of the HTTP library.
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class TokenRefusedError(CredentialsError):
    """The token is not, or no longer, accepted."""


class Options(TypedDict, total=False):
    """Settings that every client takes by keyword."""

    mask: Callable[[str], None]  # is given each token before it is used: `self.ctx.mask` in a plugin
    connect_timeout: float  # seconds, 10 by default
    read_timeout: float  # seconds without a byte of the answer, 60 by default
    retry_delays: Sequence[float]  # seconds before each further try after "too frequent" and "their fault"


class HttpClient(ABC):
    """Base of the clients: one exchange, one token, one refresh, bounded retries, errors by cause.

    Every public `async` method may be awaited on any loop; the work happens on the integration loop, in the
    caller's context (its log lines belong to the run) and ends when the caller is cancelled. `client.sync`
    has the same methods for plain threads: `client.sync.authenticate()`.

    All methods raise the IntegrationErrors of `connecthub.errors`; neither these nor log lines hold a secret.
    """

    system: ClassVar[str]

    def __init__(self, base_url: str, secrets: Mapping[str, str | None], **options: Unpack[Options]) -> None:
        """`secrets` are what the account consists of: who gives the same ones shares the token."""
        self.base_url = _checked(base_url, self.system)
        self.sync = SyncFace(self)
        self._account = (self.system, self.base_url, *(f"{name}={secrets[name]}" for name in sorted(secrets)))
        self._masker = Masker(dict(secrets))
        self._mask = options.get("mask")
        self._timeout = httpx.Timeout(
            options.get("read_timeout", 60), connect=options.get("connect_timeout", 10), pool=None
        )
        self._retry_delays = tuple(options.get("retry_delays", (1, 2, 5)))
        self._told = ""  # the token that the caller's mask knows

    @on_integration_loop
    async def authenticate(self, *, fresh: bool = False) -> str:
        """The token, from a log-in where none is alive or a `fresh` one is asked for. It is a secret."""
        return await self._persist(lambda: self._token(fresh=fresh))

    @abstractmethod
    async def _log_in(self) -> Token:
        """One log-in at the other system."""

    def _still_refused(self, refused: TokenRefusedError) -> IntegrationError:
        """What it means that a token which was got a moment ago is refused."""
        return CredentialsError(
            f"{refused}, even a fresh one", code=refused.code, request_id=refused.request_id
        )

    async def _call(self, attempt: Callable[[str], Awaitable[T]]) -> T:
        """The outcome of `attempt(token)`: once more with a new token, and after each of the delays."""
        return await self._persist(lambda: self._authorised(attempt))

    async def _authorised(self, attempt: Callable[[str], Awaitable[T]]) -> T:
        token = await self._token()
        try:
            answer = await attempt(token)
        except TokenRefusedError:
            token = await self._token(dead=token)
            try:
                answer = await attempt(token)
            except TokenRefusedError as refused:
                raise self._still_refused(refused) from None
        self._slot().used(token)
        return answer

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for delay in self._retry_delays:
            try:
                return await attempt()
            except (RateError, RemoteError) as error:
                log.info("%s; again in %g s", error, delay)
            await asyncio.sleep(delay)
        return await attempt()

    def _slot(self) -> TokenSlot:
        return runtime().slots.setdefault(self._account, TokenSlot())

    async def _token(self, *, dead: str = "", fresh: bool = False) -> str:
        token = await self._slot().get(self._log_in, dead=dead, fresh=fresh)
        if token.value != self._told:
            self._told = token.value
            self._masker.add(token.value)
            if self._mask:
                self._mask(token.value)
            if token.warning:
                log.warning("%s", token.warning)
        return token.value

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request and its answer, whatever its status. Raises RemoteError where none comes."""
        where = self._where(method, path)
        try:
            response = await runtime().http.request(
                method, self.base_url + path, json=body, params=query, headers=headers, timeout=self._timeout
            )
        # Only the text of a connection error is quoted: others can hold parts of what was sent.
        except httpx.ConnectError as error:
            raise RemoteError(f"{where}: no connection: {error}") from None
        except httpx.TimeoutException as error:
            raise RemoteError(f"{where}: no answer in time ({type(error).__name__})") from None
        except httpx.HTTPError as error:
            raise RemoteError(f"{where}: the exchange broke off ({type(error).__name__})") from None
        except (httpx.InvalidURL, ValueError) as error:  # such as a lone surrogate, or a value without end
            raise DataError(f"{where}: a value cannot be sent ({type(error).__name__})") from None
        log.debug("%s: HTTP %d, %d bytes", where, response.status_code, len(response.content))
        return response

    def _where(self, method: str, path: str) -> str:
        return f"{self.system} {method} {self.base_url}{path}"

    def _quote(self, text: object) -> str:
        """What the other system wrote, fit for an error: one short line, without our secrets."""
        return " ".join(self._masker.text(str(text)).split())[:300]


def usable_token(value: object) -> bool:
    """Whether `value` can be sent as a token at all."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def is_blank(value: object) -> bool:
    """Whether a JSON value says nothing. 0 and false do say something."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def parse_json(text: str) -> Any:
    """The JSON value; numbers with a fraction or an exponent stay text, for no id may become a float.

    Raises ValueError.
    """
    try:
        return json.loads(text, parse_float=str)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def status_error(where: str, status: int) -> IntegrationError:
    """What an HTTP status other than 200 means that the other system's own rules do not explain."""
    text, code = f"{where}: HTTP {status}", str(status)
    if status == 429:
        return RateError(f"{text}: called too frequently", code=code)
    if status == 403:
        return AccessError(
            f"{text}: the account, or the address of this machine, lacks a permission", code=code
        )
    if status == 408 or status >= 500:
        return RemoteError(f"{text}: the other system is at fault", code=code)
    return ConfigurationError(f"{text}: there is no such interface; check the base URL", code=code)


def _checked(base_url: str, system: str) -> str:
    """The base URL without what could be a secret. Raises ConfigurationError."""
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL:
        raise ConfigurationError(f"{system}: the base URL cannot be read as a URL") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ConfigurationError(
            f"{system}: the base URL must be http:// or https:// and a host, without user, query and fragment"
        )
    return str(url).rstrip("/")
