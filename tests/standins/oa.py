"""A stand-in of 致远 OA: the REST token and the CAP4 export, oddities included."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.standins.dataset import Dataset
from tests.standins.server import Standin

TOKEN = "/seeyon/rest/token"
EXPORT = "/seeyon/rest/cap4/form/soap/export"
SECRETS = {
    "rest_user": "oa-rest-user",
    "rest_password": "oa-pässwort&=+ 密码",
    "loginName": "oa-login-name",
}
TEMPLATE = "HR001"


@dataclass
class OaSwitches:
    """The oddities that can be chosen while it runs."""

    refuse_login_as: Literal["id", "404", "401"] = "id"
    token_as_text: bool = False
    refusal_status: int = 401
    refusal_text: str = "Invalid token,please authenticate again"
    no_trust: bool = False  # the export answers 401 for ever
    paging: Literal["right", "same page", "all at once"] = "right"
    code_as_text: bool = False
    inner_success: int = 1


class OaStandin(Standin):
    """致远 OA with one REST account (`SECRETS`) and one form (`TEMPLATE`)."""

    paths: ClassVar[dict[str, str]] = {TOKEN: "POST", EXPORT: "POST"}

    def __init__(self, data: Dataset, port: int = 0) -> None:
        self.data = data
        self.switches = OaSwitches()
        self.exports: list[dict[str, Any]] = []  # the bodies that asked for one
        self._bound: set[str] = set()  # tokens that business calls accept
        super().__init__(port)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "exports": self.exports}

    async def answer(self, path: str, request: Request) -> Response:
        if "application/json" not in request.headers.get("content-type", ""):
            self.violations.append(f"{path}: Content-Type is not JSON")
        body = await request.json()
        return self._login(body, request) if path == TOKEN else self._export(body, request)

    def _login(self, body: dict[str, Any], request: Request) -> Response:
        if (body.get("userName"), body.get("password")) != (SECRETS["rest_user"], SECRETS["rest_password"]):
            shape = self.switches.refuse_login_as
            return JSONResponse({"id": "-1"}) if shape == "id" else PlainTextResponse("", int(shape))
        token = str(uuid.uuid4())
        self.tokens.add(token)
        name = body.get("loginName")
        user = None
        if name == SECRETS["loginName"]:
            user = {"id": 7356757881649843864, "loginName": name, "name": name}
        if name is None or user:
            self._bound.add(token)
        if self.switches.token_as_text or "application/json" not in request.headers.get("accept", ""):
            return PlainTextResponse(token)
        return JSONResponse({"id": token, "userName": "org", "clientInfo": None, "bindingUser": user})

    def _export(self, body: dict[str, Any], request: Request) -> Response:
        token = request.headers.get("token", "")
        if token not in self.tokens & self._bound or self.switches.no_trust:
            return PlainTextResponse(self.switches.refusal_text, self.switches.refusal_status)
        self.exports.append(body)
        if body.get("templateCode") != TEMPLATE:
            return JSONResponse({"code": 1, "data": None, "message": "模板编号不存在"})
        code: int | str = "0" if self.switches.code_as_text else 0
        inner = {
            "success": self.switches.inner_success,
            "code": "200" if self.switches.inner_success else "500",
            "message": "操作成功!" if self.switches.inner_success else "操作失败",
            "data": {
                "definition": {
                    "form": {"formId": "1856567583696046383", "formName": "人员归属"},
                    "fields": self.data.fields,
                },
                "data": self._page(int(body.get("page", 1)), int(body.get("pageSize", 500))),
            },
        }
        return JSONResponse({"code": code, "message": "", "data": inner})

    def _page(self, page: int, size: int) -> list[dict[str, Any]]:
        if self.switches.paging == "all at once":
            return self.data.rows
        start = 0 if self.switches.paging == "same page" else (page - 1) * size
        return self.data.rows[start : start + size]
