"""滴滴企业版 (DiDi Enterprise): legal entities and members.

Sources: the vendor's documents of api.es.xiaojukeji.com and its two SDKs (sign, authorise, errno).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

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
from connecthub.integrations.http import (
    HttpClient,
    Options,
    TokenRefusedError,
    is_blank,
    parse_json,
    status_error,
    usable_token,
)
from connecthub.integrations.loop import Pacer, Token, on_integration_loop, runtime

log = logging.getLogger(__name__)

_AUTHORIZE = "/river/Auth/authorize"
_EDIT = "/river/Member/edit"
_LIFETIME_S = 1800.0  # as documented, where an answer does not say
_SKEW_S = 60.0
_MOST_ENTITIES = 100  # of one answer of LegalEntity/get

_SIGN = "the signature is refused: check sign_key"
_CLOCK = "the timestamp is refused: set the clock of this machine"
_SETTING = "client, parameter or company is refused: check client_id, company_id and what was sent"
_ERRNO: dict[str, tuple[type[IntegrationError], str]] = {
    "401": (TokenRefusedError, "the token is refused"),
    **dict.fromkeys(("411", "36003"), (RateError, "called too frequently")),
    **dict.fromkeys(("500", "19998"), (RemoteError, "the other system is at fault")),
    **dict.fromkeys(("407", "19999"), (ConfigurationError, _SIGN)),
    **dict.fromkeys(("408", "409", "10001"), (ConfigurationError, _CLOCK)),
    **dict.fromkeys(("400", "410", "412", "10003", "12001", "12002"), (ConfigurationError, _SETTING)),
    **dict.fromkeys(
        ("403", "10002"), (AccessError, "the client, or the address of this machine, lacks a permission")
    ),
    "50201": (DataError, "the record is a duplicate"),
    "50221": (DataError, "the member is unknown"),
    "50222": (DataError, "the member belongs to another company"),
    "50223": (DataError, "the update failed"),
}


def sign(params: Mapping[str, Any], sign_key: str) -> str:
    """The `sign` of a call: MD5, in lower-case hex, of all top-level parameters and the key.

    Nulls and `sign` itself are left out, empty texts are not; values count as they are before URL encoding.
    """
    signed = {name: value for name, value in params.items() if name != "sign" and value is not None}
    signed["sign_key"] = sign_key
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class DidiClient(HttpClient):
    """A client of one company; see HttpClient about loops, the `sync` face and errors.

    Ids of legal entities are texts: they can exceed 64 bits.
    """

    system: ClassVar[str] = "DiDi"

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        sign_key: str,
        company_id: str,
        phone: str | None = None,
        *,
        edit_interval_ms: float = 150,
        **options: Unpack[Options],
    ) -> None:
        """`phone` was a parameter of the log-in until December 2023, and is sent where it is given.

        `edit_interval_ms` is kept between an edit's answer and the next edit of the company, whichever client
        of this process makes it. The vendor asks for 150 ms, newer integrations use 200.
        """
        self._client = {"client_id": client_id, "client_secret": client_secret}
        if phone:
            self._client["phone"] = phone
        account = {**self._client, "sign_key": sign_key, "company_id": company_id}
        super().__init__(base_url, account, **options)
        self._sign_key = sign_key
        self._company_id = company_id
        self._edit_interval_s = edit_interval_ms / 1000

    @on_integration_loop
    async def legal_entities(
        self, *, keyword: str | None = None, legal_entity_id: str | None = None
    ) -> list[dict[str, Any]]:
        """The valid legal entities of all pages, as sent but for `legal_entity_id`, which is a text.

        `keyword` is fuzzy: a part of a name or of an outer id.
        """
        found: list[dict[str, Any]] = []
        while True:
            query = {
                "keyword": keyword,
                "legal_entity_id": legal_entity_id,
                "offset": str(len(found)),
                "length": str(_MOST_ENTITIES),
            }
            data = await self._get("/river/LegalEntity/get", query)
            try:
                records = [_with_text_id(record) for record in data["records"] or []]
                total = int(data["total"])
            except (AttributeError, KeyError, TypeError, ValueError):
                raise RemoteError("DiDi LegalEntity/get: the answer holds no records") from None
            found += records
            if not records or len(found) >= total:
                return found

    @on_integration_loop
    async def find_legal_entity(self, name: str) -> dict[str, Any]:
        """The one legal entity of exactly this name, or else of this name with blanks around it.

        Raises DataError where there is none, or more than one.
        """
        entities = await self.legal_entities(keyword=name)
        exact = [entity for entity in entities if entity.get("name") == name]
        exact = exact or [entity for entity in entities if str(entity.get("name")).strip() == name.strip()]
        ids = {entity["legal_entity_id"] for entity in exact}
        if len(ids) != 1:
            what = "no legal entity has" if not ids else f"{len(ids)} legal entities have"
            raise DataError(f"{what} exactly the name {self._quote(name)}")
        return exact[0]

    @on_integration_loop
    async def member_detail(
        self,
        *,
        employee_number: str | None = None,
        member_id: str | None = None,
        phone: str | None = None,
        third_user_id: str | None = None,
    ) -> dict[str, Any]:
        """The member with the one key given, as sent but for `legal_entity_id`: a text, empty for none.

        `status` is 1 for normal, 4 for left, 6 for no phone bound. Raises DataError where the
        member is unknown.
        """
        keys = {
            "employee_number": employee_number,
            "member_id": member_id,
            "phone": phone,
            "third_user_id": third_user_id,
        }
        member = await self._get("/river/Member/detail", _one_of(keys))
        if not member:
            raise DataError("the member is unknown")
        if not isinstance(member, dict):
            raise RemoteError("DiDi Member/detail: the answer holds no member")
        return _with_text_id(member)

    @on_integration_loop
    async def member_edit(
        self,
        changes: Mapping[str, Any],
        *,
        employee_number: str | None = None,
        member_id: str | None = None,
        keep_blank: bool = False,
    ) -> None:
        """Set fields of the member with the one key given. An empty value may clear a field.

        Blank values are therefore left out unless `keep_blank`. Raises ValueError where nothing is left, and
        DataError where the member is unknown or the change is refused.
        """
        if not keep_blank:
            changes = {name: value for name, value in changes.items() if not is_blank(value)}
        if not changes:
            raise ValueError("no field to change was given")
        key = _one_of({"employee_number": employee_number, "member_id": member_id})
        # Signed and sent as this very text.
        data = json.dumps(changes, ensure_ascii=False)
        # Trying again is safe even where an answer was lost: the same values are set again.
        await self._call(lambda token: self._edit(token, {**key, "data": data}))

    async def _edit(self, token: str, params: Mapping[str, str]) -> None:
        pacer = runtime().pacers.setdefault((self.base_url, self._company_id), Pacer())
        async with pacer.turn(self._edit_interval_s):
            answer = await self._exchange("POST", _EDIT, body=self._signed(params, token))
        self._data(_EDIT, answer)

    async def _get(self, path: str, params: Mapping[str, str | None]) -> Any:
        async def attempt(token: str) -> Any:
            return self._data(path, await self._exchange("GET", path, query=self._signed(params, token)))

        return await self._call(attempt)

    def _signed(self, params: Mapping[str, str | None], token: str) -> dict[str, str]:
        whole = {
            **{name: value for name, value in params.items() if value is not None},
            "client_id": self._client["client_id"],
            "access_token": token,
            "company_id": self._company_id,
            "timestamp": str(int(time.time())),
        }
        try:
            return {**whole, "sign": sign(whole, self._sign_key)}
        except UnicodeError:  # a lone surrogate, which JSON can hold and UTF-8 cannot
            raise DataError("DiDi: a value cannot be signed: it holds half a character") from None

    async def _log_in(self) -> Token:
        params: dict[str, Any] = {
            **self._client,
            "grant_type": "client_credentials",
            "timestamp": int(time.time()),
        }
        answer = await self._exchange(
            "POST", _AUTHORIZE, body={**params, "sign": sign(params, self._sign_key)}
        )
        try:
            content = self._content(_AUTHORIZE, answer)
        except TokenRefusedError as refused:
            raise CredentialsError(
                f"DiDi {_AUTHORIZE}: log-in refused; check client_id and client_secret",
                code=refused.code,
                request_id=refused.request_id,
            ) from None
        # The documented success carries no errno.
        if not usable_token(token := content.get("access_token")):
            raise RemoteError(f"DiDi {_AUTHORIZE}: the answer holds no access_token")
        try:
            lifetime = float(content["expires_in"])
        except (KeyError, TypeError, ValueError):
            lifetime = _LIFETIME_S
        return Token(str(token), max(lifetime - _SKEW_S, lifetime / 2))

    def _data(self, path: str, answer: httpx.Response) -> Any:
        """The `data` of a business call's answer."""
        content = self._content(path, answer)
        if "errno" not in content:
            raise RemoteError(f"DiDi {path}: the answer is not the JSON that the vendor documents")
        return content.get("data")

    def _content(self, path: str, answer: httpx.Response) -> dict[str, Any]:
        """The JSON object of an answer that is no error by its errno or its HTTP status."""
        try:
            content = parse_json(answer.text)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            content = {}
            if answer.status_code == 200:
                raise RemoteError(f"DiDi {path}: the answer is no JSON object")
        errno = str(content.get("errno", "0")).strip()
        request_id = self._quote(content.get("request_id") or "")
        log.debug("DiDi %s: errno %s, request_id %s", path, self._quote(errno), request_id)
        if errno != "0":
            raise self._failure(path, errno, content, request_id)
        if answer.status_code == 401:
            raise TokenRefusedError(f"DiDi {path}: the token is refused", code="401", request_id=request_id)
        if answer.status_code != 200:
            raise status_error(f"DiDi {path}", answer.status_code)
        return content

    def _failure(self, path: str, errno: str, content: dict[str, Any], request_id: str) -> IntegrationError:
        cause, meaning = _ERRNO.get(errno, (IntegrationError, "an error that the vendor does not document"))
        # The answer to a bad sign may echo what was signed, the key included: nothing of it is quoted.
        said = "" if meaning == _SIGN else f", {self._quote(content.get('errmsg') or 'no errmsg')}"
        errno = self._quote(errno)
        text = f"DiDi {path}: {meaning} (errno {errno}{said}; request_id {request_id or 'none'})"
        return cause(text, code=errno, request_id=request_id)


def _one_of(keys: Mapping[str, str | None]) -> dict[str, str]:
    given = {name: value for name, value in keys.items() if value}
    if len(given) != 1:
        raise ValueError(f"exactly one of {', '.join(keys)} is needed")
    return given


def _with_text_id(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its `legal_entity_id` as a text: a number in some answers and a text in others."""
    number = record.get("legal_entity_id")
    return {**record, "legal_entity_id": "" if number is None else str(number).strip()}
