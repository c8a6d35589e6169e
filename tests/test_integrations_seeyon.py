"""致远 OA: token and export with their oddities, against the stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from connecthub.errors import (
    AccessError,
    ConfigurationError,
    CredentialsError,
    RateError,
    RemoteError,
)
from connecthub.integrations import ExportQuery
from tests.standins import Fault, OaStandin, make_dataset, oa_row
from tests.standins.clients import QUERY, forget_tokens, oa_client
from tests.standins.oa import EXPORT, TEMPLATE, TOKEN


@pytest.fixture(autouse=True)
def _no_token_of_another_test() -> None:
    forget_tokens()


@pytest.fixture
def oa() -> Iterator[OaStandin]:
    with OaStandin(make_dataset(30)) as standin:
        yield standin


@pytest.mark.parametrize("shape", ["id", "404", "401"])
def test_a_refused_log_in_in_all_its_shapes(oa: OaStandin, shape: Any) -> None:
    oa.switches.refuse_login_as = shape
    with pytest.raises(CredentialsError, match="check rest_user and rest_password"):
        oa_client(oa, "wrong").sync.authenticate()
    assert oa.calls[TOKEN] == 1


def test_a_token_as_plain_text(oa: OaStandin) -> None:
    oa.switches.token_as_text = True
    assert oa_client(oa).sync.authenticate() in oa.tokens
    oa.fail_next(TOKEN, Fault(200, " -1\n"))
    with pytest.raises(CredentialsError):
        oa_client(oa).sync.authenticate(fresh=True)


@pytest.mark.parametrize(
    "body", ["<html>log in</html>", {}, {"id": None}, [], "", {"id": "a b"}, {"id": "令牌"}]
)
def test_what_is_no_token(oa: OaStandin, body: Any) -> None:
    oa.fail_next(TOKEN, Fault(200, body))
    with pytest.raises(RemoteError, match="holds no token"):
        oa_client(oa, retry_delays=()).sync.authenticate()


def test_an_unknown_login_name_is_warned_about_at_once(
    oa: OaStandin, caplog: pytest.LogCaptureFixture
) -> None:
    for client in (oa_client(oa), oa_client(oa, login_name=None)):
        client.sync.authenticate()
    assert caplog.records == []
    for _ in range(2):  # the second client uses the cached token, and is told as well
        oa_client(oa, login_name="nobody").sync.authenticate()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "check loginName" in caplog.text and "nobody" not in caplog.text
    with pytest.raises(AccessError, match="loginName is unknown"):
        oa_client(oa, login_name="nobody").sync.export_raw(QUERY)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "Invalid token,please authenticate again"),
        (401, "INVALID TOKEN, Please authenticate again"),
        (401, "whatever"),
        (500, "error: Invalid token, please authenticate again!"),
        (200, "Invalid token,please authenticate again"),
        (200, '{"code": 500, "message": "Invalid token, please authenticate again"}'),
    ],
)
def test_a_dead_token_in_all_its_shapes(oa: OaStandin, status: int, text: str) -> None:
    oa.switches.refusal_status, oa.switches.refusal_text = status, text
    client = oa_client(oa, retry_delays=())
    client.sync.authenticate()
    oa.tokens.clear()
    assert len(client.sync.export_raw(QUERY).rows) == 30
    assert oa.calls[TOKEN] == 2


def test_a_missing_trust_setting_is_a_permission_and_not_a_token(oa: OaStandin) -> None:
    oa.switches.no_trust = True
    with pytest.raises(AccessError, match="trust setting"):
        oa_client(oa).sync.export_raw(QUERY)
    assert (oa.calls[EXPORT], oa.calls[TOKEN]) == (2, 2)


def test_a_success_is_one_whatever_its_cells_contain(oa: OaStandin) -> None:
    oa.data.rows = [oa_row("E00001", "Invalid token,please authenticate again")]
    (row,) = oa_client(oa).sync.export_rows(QUERY)
    assert row.cells["field0003"].text.startswith("Invalid token") and oa.calls[TOKEN] == 1


@pytest.mark.parametrize(("size", "pages"), [(7, 5), (10, 4), (30, 2), (31, 1)])
def test_all_pages_up_to_the_first_that_is_not_full(oa: OaStandin, size: int, pages: int) -> None:
    async def numbers() -> list[int]:
        return [row.number async for row in oa_client(oa).export_rows(QUERY, page_size=size)]

    assert asyncio.run(numbers()) == list(range(1, 31))
    assert [(each["page"], each["pageSize"]) for each in oa.exports] == [
        (n, size) for n in range(1, pages + 1)
    ]


def test_a_server_that_ignores_the_page_does_not_run_for_ever(oa: OaStandin) -> None:
    oa.switches.paging = "same page"
    with pytest.raises(RemoteError, match="page 2 repeats the one before"):
        list(oa_client(oa).sync.export_rows(QUERY, page_size=10))
    oa.switches.paging = "all at once"
    assert len(list(oa_client(oa).sync.export_rows(QUERY, page_size=10))) == 30


def test_only_what_is_given_is_sent_and_extra_wins(oa: OaStandin) -> None:
    query = ExportQuery(
        templateCode=TEMPLATE,
        rightId="6009669017095982620.-8527979346162529315",
        senderLoginName="",
        doTrigger=False,
        param={"a": 1},
        extra={"pageSize": 7, "more": True},
    )
    page = oa_client(oa).sync.export_raw(query)
    assert oa.exports == [
        {
            "templateCode": TEMPLATE,
            "rightId": "6009669017095982620.-8527979346162529315",
            "doTrigger": False,
            "param": {"a": 1},
            "page": 1,
            "pageSize": 7,
            "more": True,
        }
    ]
    assert page.meta == {
        "status": 200,
        "content_type": "application/json",
        "content_length": len(page.text.encode()),
        "page": 1,
        "page_size": 7,
        "rows": 7,
    }


def test_cells_and_definitions(oa: OaStandin) -> None:
    oa.data.rows = [oa_row(" E00001 ", "上海示例科技有限公司", company_id="9007199254740993")]
    oa.data.rows[0]["masterData"]["field0002"] = {"value": 9007199254740993, "showValue": None}
    (row,) = oa_client(oa).sync.export_rows(QUERY)
    assert row.names("工号") == ["field0001"] and row.names("nothing") == []
    assert row.fields[0].field_type == "VARCHAR" and row.cells["field0001"].text == "E00001"
    company = row.cells["field0003"]
    assert (company.value, company.text) == ("9007199254740993", "上海示例科技有限公司")
    assert row.cells["field0002"].text == "9007199254740993"


def test_both_envelopes_are_checked(oa: OaStandin) -> None:
    oa.switches.code_as_text = True
    assert len(oa_client(oa).sync.export_raw(QUERY).rows) == 30
    oa.switches.inner_success = 0
    with pytest.raises(ConfigurationError, match="code 500: 操作失败"):
        oa_client(oa).sync.export_raw(QUERY)
    with pytest.raises(ConfigurationError, match="模板编号不存在"):
        oa_client(oa).sync.export_raw(ExportQuery(templateCode="another"))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault(200, "<html>"), RemoteError),
        (Fault(200, {"code": 0, "data": None}), RemoteError),
        (Fault(200, {"code": 0, "data": {"success": 1, "code": "200", "data": {"data": 7}}}), RemoteError),
        (Fault(200, {"code": 0, "data": {"success": 1, "code": "200", "data": {"data": "?"}}}), RemoteError),
        (Fault(200, "[" * 100_000), RemoteError),
        (Fault(302), ConfigurationError),
        (Fault(404), ConfigurationError),
        (Fault(403), AccessError),
        (Fault(429), RateError),
        (Fault(503), RemoteError),
    ],
)
def test_other_answers_of_the_oa_by_cause(oa: OaStandin, fault: Fault, cause: type[Exception]) -> None:
    oa.fail_next(EXPORT, fault)
    with pytest.raises(cause) as caught:
        oa_client(oa, retry_delays=()).sync.export_raw(QUERY)
    assert type(caught.value) is cause
