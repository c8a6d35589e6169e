"""致远 OA (Seeyon): the REST token and the CAP4 form export.

Sources: the vendor's REST documents (token, CAP4 export since V8.0SP1). A token lives for 15 minutes without
use, other pages say 20 and 23; it counts as 10 here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Unpack

import httpx

from connecthub.errors import AccessError, ConfigurationError, CredentialsError, IntegrationError, RemoteError
from connecthub.integrations.http import (
    HttpClient,
    Options,
    TokenRefusedError,
    parse_json,
    status_error,
    usable_token,
)
from connecthub.integrations.loop import Token, on_integration_loop

_TOKEN_PATH = "/seeyon/rest/token"  # noqa: S105  (a path)
_EXPORT_PATH = "/seeyon/rest/cap4/form/soap/export"
_JSON = {"Accept": "application/json"}
_REFUSED = "invalidtoken,pleaseauthenticateagain"


@dataclass(frozen=True, kw_only=True)
class ExportQuery:
    """What to export, named as on the wire. What is None or blank is left out; `extra` is merged last.

    Dates are texts such as `2020-06-30`. `senderLoginName`, `doTrigger` and `param` are documented for other
    calls of the vendor only, and passed through.
    """

    templateCode: str
    beginDateTime: str | None = None
    endDateTime: str | None = None
    rightId: str | None = None
    dataId: str | None = None
    senderLoginName: str | None = None
    doTrigger: bool | str | None = None
    param: Any = None
    extra: Mapping[str, Any] | None = None

    def body(self, page: int, page_size: int) -> dict[str, Any]:
        """The JSON body that asks for one page, counted from 1."""
        named = {name: value for name, value in asdict(self).items() if name != "extra"}
        given = {name: value for name, value in named.items() if value not in (None, "")}
        return given | {"page": page, "pageSize": page_size} | dict(self.extra or {})


@dataclass(frozen=True)
class FormField:
    """A field of the form: `name` such as field0001, `display` as people see it."""

    name: str
    display: str
    field_type: str
    input_type: str


@dataclass(frozen=True)
class Cell:
    """What is stored, and what is displayed for it; as sent, blanks included."""

    value: str
    shown: str

    @property
    def text(self) -> str:
        """What a person reads there, without blanks around it: the displayed value, else the stored one."""
        return self.shown.strip() or self.value.strip()


@dataclass(frozen=True)
class ExportRow:
    """One row: `number` counts from 1 over all pages, `cells` are by field name, `sub_data` is as sent.

    Of a malformed row `cells` are those that can be read, and its `problem` says what cannot.
    """

    number: int
    fields: tuple[FormField, ...]
    cells: Mapping[str, Cell]
    sub_data: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    def names(self, display: str) -> list[str]:
        """The names of the fields displayed as `display`; of several, those that the row itself has."""
        names = [each.name for each in self.fields if each.display.strip() == display]
        return names if len(names) < 2 else [name for name in names if name in self.cells]


@dataclass(frozen=True)
class ExportPage:
    """One answer: `text` as sent, `meta` about it, and what it holds.

    `meta`: status, content_type, content_length (bytes, unpacked), page, page_size, rows.
    """

    text: str
    meta: dict[str, Any]
    fields: tuple[FormField, ...]
    rows: list[ExportRow]


class SeeyonClient(HttpClient):
    """A client of one OA for one REST account; see HttpClient about loops, the `sync` face and errors."""

    system: ClassVar[str] = "Seeyon"

    def __init__(
        self,
        base_url: str,
        rest_user: str,
        rest_password: str,
        login_name: str | None = None,
        *,
        token_idle_s: float = 600,
        **options: Unpack[Options],
    ) -> None:
        """`base_url` is scheme, host and port of the OA; `login_name` the OA user to act for, if any.

        A token that was not used for `token_idle_s` seconds is not used again.
        """
        account = {"rest_user": rest_user, "rest_password": rest_password, "login_name": login_name or None}
        super().__init__(base_url.strip().rstrip("/").removesuffix("/seeyon"), account, **options)
        self._login = {"userName": rest_user, "password": rest_password}
        if login_name:
            self._login["loginName"] = login_name
        self._token_idle_s = token_idle_s

    @on_integration_loop
    async def export_raw(self, query: ExportQuery, *, page: int = 1, page_size: int = 500) -> ExportPage:
        """One page of the export. Raises AccessError where a fresh token is refused too."""
        return await self._call(lambda token: self._export(token, query, page, page_size))

    async def export_rows(self, query: ExportQuery, *, page_size: int = 500) -> AsyncIterator[ExportRow]:
        """The rows of all pages, up to the first page that is not full: the answer carries no total.

        Raises RemoteError where the server gives the same full page again and again.
        """
        number, page = 0, 1
        before: list[Mapping[str, Cell]] = []
        while True:
            answer = await self.export_raw(query, page=page, page_size=page_size)
            cells = [row.cells for row in answer.rows]
            if cells and cells == before:
                if len(cells) > int(answer.meta["page_size"]):
                    return  # it does not page at all, and the first answer held everything
                raise RemoteError(f"{self._where('POST', _EXPORT_PATH)}: page {page} repeats the one before")
            for row in answer.rows:
                number += 1
                yield replace(row, number=number)
            if len(cells) < int(answer.meta["page_size"]):
                return
            before, page = cells, page + 1

    async def _log_in(self) -> Token:
        answer = await self._exchange("POST", _TOKEN_PATH, body=self._login, headers=_JSON)
        where = self._where("POST", _TOKEN_PATH)
        if answer.status_code in (401, 404):
            raise CredentialsError(
                f"{where}: log-in refused (HTTP {answer.status_code}); check rest_user and rest_password, "
                "and that the base URL leads to the OA",
                code=str(answer.status_code),
            )
        if answer.status_code != 200:
            raise status_error(where, answer.status_code)
        try:
            content = parse_json(answer.text)
        except ValueError:
            content = answer.text.strip()  # some versions send the bare token whatever was asked for
        token = content.get("id") if isinstance(content, dict) else content
        if str(token) == "-1":
            raise CredentialsError(
                f"{where}: log-in refused (id -1); check rest_user and rest_password", code="-1"
            )
        if not usable_token(token):
            raise RemoteError(f"{where}: the answer holds no token")
        return Token(str(token), self._token_idle_s, sliding=True, warning=self._unbound(content))

    def _unbound(self, content: Any) -> str:
        """The warning that loginName is unknown: it gives a token, which then no business call accepts."""
        if "loginName" not in self._login or not isinstance(content, dict) or content.get("bindingUser"):
            return ""
        return f"{self.system} {self.base_url}: the token is bound to no user; check loginName"

    async def _export(self, token: str, query: ExportQuery, page: int, page_size: int) -> ExportPage:
        body = query.body(page, page_size)
        answer = await self._exchange("POST", _EXPORT_PATH, body=body, headers={**_JSON, "token": token})
        where = self._where("POST", _EXPORT_PATH)
        exported = self._exported(where, answer)
        try:
            fields, rows = _fields(exported), _rows(exported)
        except (AttributeError, TypeError):
            raise RemoteError(f"{where}: the answer is no form export") from None
        meta = {
            "status": answer.status_code,
            "content_type": answer.headers.get("content-type", ""),
            "content_length": len(answer.content),
            "page": body["page"],
            "page_size": body["pageSize"],
            "rows": len(rows),
        }
        return ExportPage(
            answer.text, meta, fields, [ExportRow(n, fields, *row) for n, row in enumerate(rows, 1)]
        )

    def _exported(self, where: str, answer: httpx.Response) -> Any:
        """The inside of both envelopes, each checked."""
        try:
            content = parse_json(answer.text)
        except ValueError:
            content = None
        outer = content if isinstance(content, dict) else {}
        if answer.status_code != 200 or str(outer.get("code")) != "0":
            raise self._failure(where, answer, outer)
        inner = outer.get("data")
        if not isinstance(inner, dict):
            raise RemoteError(f"{where}: the answer holds no data")
        if str(inner.get("success")) not in ("1", "True") or str(inner.get("code")) != "200":
            raise self._refusal(where, inner)
        return inner.get("data") or {}

    def _failure(self, where: str, answer: httpx.Response, outer: Mapping[str, Any]) -> IntegrationError:
        if answer.status_code == 401 or _REFUSED in "".join(answer.text.lower().split()):
            return TokenRefusedError(f"{where}: the token is refused", code=str(answer.status_code))
        if answer.status_code != 200:
            return status_error(where, answer.status_code)
        if "code" not in outer:
            return RemoteError(f"{where}: the answer is not the JSON that the vendor documents")
        return self._refusal(where, outer)

    def _refusal(self, where: str, envelope: Mapping[str, Any]) -> IntegrationError:
        code, message = (
            self._quote(envelope.get("code")),
            self._quote(envelope.get("message") or "no message"),
        )
        return ConfigurationError(f"{where}: refused with code {code}: {message}", code=code)

    def _still_refused(self, refused: TokenRefusedError) -> IntegrationError:
        return AccessError(
            f"{refused}, even a fresh one: the REST account lacks the trust setting of this interface (since "
            "V8.2SP1), or loginName is unknown",
            code=refused.code,
        )


def _fields(exported: Mapping[str, Any]) -> tuple[FormField, ...]:
    """The definitions of an export. Raises AttributeError or TypeError where it is none."""
    return tuple(
        FormField(*(str(each.get(key) or "") for key in ("name", "display", "fieldType", "inputType")))
        for each in (exported.get("definition") or {}).get("fields") or []
    )


def _rows(exported: Mapping[str, Any]) -> list[tuple[dict[str, Cell], dict[str, Any], str]]:
    """Cells, subData and problem of each row. Raises TypeError where it is no export."""
    rows = exported.get("data") or []
    if not isinstance(rows, list):
        raise TypeError("rows that are no list")
    return [_row(row) for row in rows]


def _row(row: Any) -> tuple[dict[str, Cell], dict[str, Any], str]:
    """What can be read of one row: it must not spoil the others, and its problem says what cannot."""
    sent = row.get("masterData") if isinstance(row, dict) else None
    if not isinstance(sent, dict):
        return {}, {}, "the row of the export cannot be read"
    broken = [name for name, cell in sent.items() if cell and not isinstance(cell, dict)]
    cells = {name: _cell(cell) for name, cell in sent.items() if name not in broken}
    problem = f"the cell {broken[0]} of the export cannot be read" if broken else ""
    return cells, row.get("subData") or {}, problem


def _cell(cell: Mapping[str, Any] | None) -> Cell:
    value, shown = (
        "" if (text := (cell or {}).get(key)) is None else str(text) for key in ("value", "showValue")
    )
    return Cell(value, shown)
