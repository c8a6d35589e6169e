"""A stand-in of 滴滴企业版: token, legal entities, members; it checks what it is sent."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.standins.dataset import Dataset
from tests.standins.server import Standin

AUTHORIZE = "/river/Auth/authorize"
ENTITIES = "/river/LegalEntity/get"
DETAIL = "/river/Member/detail"
EDIT = "/river/Member/edit"
SECRETS = {
    "client_id": "didi-client-id",
    "client_secret": "didi-client-secret",
    "sign_key": "didi-sign-key",
    "company_id": "1125912345678901",
}
_CLOCK_S = 300


@dataclass
class DidiSwitches:
    """The oddities that can be chosen while it runs."""

    errno_as_text: bool = False
    dead_token_as_http_401: bool = False
    refuse_every_token: bool = False
    no_permission: bool = False
    expires_in: int = 1800
    min_interval_ms: float = 150
    clock_off_s: float = 0


class _RefusedError(Exception):
    def __init__(self, errno: int, errmsg: str) -> None:
        self.errno, self.errmsg = errno, errmsg


class DidiStandin(Standin):
    """滴滴企业版 with one company (`SECRETS`). `edits` are those that were done, with the gap before each."""

    paths: ClassVar[dict[str, str]] = {AUTHORIZE: "POST", ENTITIES: "GET", DETAIL: "GET", EDIT: "POST"}

    def __init__(
        self, data: Dataset, port: int = 0, on_edit: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.members = data.members
        self.entities = data.entities
        self.switches = DidiSwitches()
        self.edits: list[dict[str, Any]] = []
        self.authorized: list[str | None] = []  # the phone of each log-in
        self._on_edit = on_edit or (lambda edit: None)
        self._edit_answered_at = float("-inf")
        super().__init__(port)

    def state(self) -> dict[str, Any]:
        held = {number: each["legal_entity_id"] for number, each in self.members.items()}
        return {**super().state(), "edits": self.edits, "members": held}

    def edited(self) -> dict[str, str]:
        """Employee number -> the legal entity it was last set to."""
        return {edit["employee_number"]: edit["legal_entity_id"] for edit in self.edits}

    async def respond(self, path: str, request: Request) -> Response:
        if path != EDIT:
            return await super().respond(path, request)
        gap_ms = (time.monotonic() - self._edit_answered_at) * 1000
        try:
            if gap_ms < self.switches.min_interval_ms:
                self.violations.append(f"edit {gap_ms:.1f} ms after the last one")
                return self._envelope(411, "too frequent")
            return await super().respond(path, request)
        finally:
            self._edit_answered_at = time.monotonic()

    async def answer(self, path: str, request: Request) -> Response:
        query = request.method == "GET"
        params = dict(request.query_params) if query else await request.json()
        try:
            self._check_sign(params)
            if path == AUTHORIZE:
                return self._authorize(params)
            self._check_account(params)
            return self._envelope(0, "SUCCESS", self._data(path, params))
        except _RefusedError as refused:
            if refused.errno == 401 and self.switches.dead_token_as_http_401:
                return PlainTextResponse("Unauthorized", 401)
            return self._envelope(refused.errno, refused.errmsg)

    def _envelope(self, errno: int, errmsg: str, data: Any = None) -> Response:
        number: int | str = str(errno) if self.switches.errno_as_text else errno
        envelope = {"errno": number, "errmsg": errmsg, "data": data, "request_id": f"req-{uuid.uuid4()}"}
        return JSONResponse(envelope)

    def _check_sign(self, params: dict[str, Any]) -> None:
        """Independent of the client's own way to sign."""
        pairs = [f"{name}={value}" for name, value in params.items() if name != "sign" and value is not None]
        text = "&".join(
            sorted([*pairs, f"sign_key={SECRETS['sign_key']}"], key=lambda pair: pair.split("=")[0])
        )
        if params.get("sign") != hashlib.md5(text.encode()).hexdigest():
            self.violations.append("bad sign")
            raise _RefusedError(407, f"sign error, signed: {text}")
        if abs(time.time() + self.switches.clock_off_s - int(params.get("timestamp", 0))) > _CLOCK_S:
            raise _RefusedError(408, "timestamp expired")
        if params.get("client_id") != SECRETS["client_id"]:
            raise _RefusedError(400, "client_id error")

    def _authorize(self, params: dict[str, Any]) -> Response:
        if params.get("client_secret") != SECRETS["client_secret"]:
            raise _RefusedError(401, f"client_secret error: {params.get('client_secret')}")
        if params.get("grant_type") != "client_credentials":
            raise _RefusedError(400, "grant_type error")
        self.authorized.append(params.get("phone"))
        token = uuid.uuid4().hex
        self.tokens.add(token)
        return JSONResponse(
            {
                "access_token": token,
                "expires_in": self.switches.expires_in,
                "token_type": "Bearer",
                "scope": "",
            }
        )

    def _check_account(self, params: dict[str, Any]) -> None:
        if params.get("access_token") not in self.tokens or self.switches.refuse_every_token:
            raise _RefusedError(401, "access_token invalid")
        if params.get("company_id") != SECRETS["company_id"]:
            raise _RefusedError(12001, f"company_id error: {params.get('company_id')}")
        if self.switches.no_permission:
            raise _RefusedError(10002, "no permission")

    def _data(self, path: str, params: dict[str, Any]) -> Any:
        if path == ENTITIES:
            return self._legal_entities(params)
        found = self._member(params)
        return found if path == DETAIL else self._edit(found, params)

    def _legal_entities(self, params: dict[str, Any]) -> dict[str, Any]:
        offset, length = int(params.get("offset", 0)), int(params.get("length", 20))
        if length > 100:
            raise _RefusedError(400, "length is over 100")
        keyword, wanted = params.get("keyword", ""), params.get("legal_entity_id")
        records = [
            {
                "legal_entity_id": int(number),
                "name": name,
                "out_legal_entity_id": f"OUT-{number}",
                "status": 1,
            }
            for number, name in self.entities
            if keyword.strip() in name and wanted in (None, number)
        ]
        return {"total": len(records), "records": records[offset : offset + length]}

    def _member(self, params: dict[str, Any]) -> dict[str, Any]:
        for key in ("employee_number", "member_id", "phone"):
            if key in params:
                for each in self.members.values():
                    if each[key] == params[key]:
                        return each
                raise _RefusedError(50221, "member does not exist")
        raise _RefusedError(400, "no key of a member was sent")

    def _edit(self, found: dict[str, Any], params: dict[str, Any]) -> None:
        data = params.get("data")
        if not isinstance(data, str):
            raise _RefusedError(400, "data is not a JSON text")
        changes = json.loads(data)
        if changes.get("legal_entity_id", self.entities[0][0]) not in dict(self.entities):
            raise _RefusedError(50223, "update failed: no such legal entity")
        before = found["legal_entity_id"]
        found.update(changes)
        gap = time.monotonic() - self._edit_answered_at
        edit = {
            "employee_number": found["employee_number"],
            "before": before,
            "legal_entity_id": found["legal_entity_id"],
            "at": time.time(),
            "gap_ms": round(gap * 1000, 1) if self.edits else None,
        }
        self.edits.append(edit)
        self._on_edit(edit)
