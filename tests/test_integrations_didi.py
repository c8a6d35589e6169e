"""滴滴企业版: sign, token, legal entities and members, against the stand-in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from connecthub.errors import (
    AccessError,
    ConfigurationError,
    CredentialsError,
    DataError,
    IntegrationError,
    RateError,
    RemoteError,
)
from connecthub.integrations.didi import sign
from connecthub.integrations.loop import runtime
from tests.standins import DidiStandin, Fault, make_dataset
from tests.standins.clients import didi_client, forget_tokens
from tests.standins.didi import AUTHORIZE, DETAIL, EDIT, ENTITIES


@pytest.fixture(autouse=True)
def _no_token_of_another_test() -> None:
    forget_tokens()


@pytest.fixture
def didi() -> Iterator[DidiStandin]:
    with DidiStandin(make_dataset(30)) as standin:
        standin.switches.min_interval_ms = 0
        yield standin


def test_the_vendors_sign_vector() -> None:
    params = {"client_id": "test_client", "client_secret": "test_secret", "timestamp": 1566733837}
    params["grant_type"] = "client_credentials"
    assert sign(params, "test_key") == "7b04bf3ba1f9ad9f2ef5d878e441be8a"


def test_what_is_signed() -> None:
    """Sorted by name; without nulls and the sign itself, with empty texts; values as before URL encoding."""
    assert sign({"a": 1, "b": 2, "c": 3}, "k") == hashlib.md5(b"a=1&b=2&c=3&sign_key=k").hexdigest()
    odd = {"z": "3 &=%", "b": "", "a": "公司", "d": None, "sign": "x"}
    assert sign(odd, "k") == hashlib.md5("a=公司&b=&sign_key=k&z=3 &=%".encode()).hexdigest()


@pytest.mark.parametrize(
    ("errno", "cause"),
    [
        *((errno, RateError) for errno in (411, 36003)),
        *((errno, RemoteError) for errno in (500, 19998)),
        *((errno, ConfigurationError) for errno in (407, 19999, 408, 409, 10001)),
        *((errno, ConfigurationError) for errno in (400, 410, 412, 10003, 12001, 12002)),
        *((errno, AccessError) for errno in (403, 10002)),
        *((errno, DataError) for errno in (50201, 50221, 50222, 50223)),
        (99999, IntegrationError),
    ],
)
def test_errors_by_errno(didi: DidiStandin, errno: int, cause: type[Exception]) -> None:
    for shape in (errno, str(errno)):
        answer = {"errno": shape, "errmsg": "what", "data": None, "request_id": "req-7"}
        didi.fail_next(DETAIL, Fault(200, answer))
        with pytest.raises(IntegrationError, match="req-7") as caught:
            didi_client(didi, retry_delays=()).sync.member_detail(employee_number="E00001")
        assert type(caught.value) is cause
        assert (caught.value.code, caught.value.request_id) == (str(errno), "req-7")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault(200, "<html>"), RemoteError),
        (Fault(200, {"data": {}}), RemoteError),
        (Fault(200, {"errno": 0, "data": "?"}), RemoteError),
        (Fault(502, "<html>"), RemoteError),
        (Fault(404, "<html>"), ConfigurationError),
        (Fault(500, {"errno": 10002}), AccessError),
    ],
)
def test_other_answers_by_cause(didi: DidiStandin, fault: Fault, cause: type[Exception]) -> None:
    didi.fail_next(DETAIL, fault)
    with pytest.raises(IntegrationError) as caught:
        didi_client(didi, retry_delays=()).sync.member_detail(employee_number="E00001")
    assert type(caught.value) is cause


@pytest.mark.parametrize("errno", [411, 19998])
def test_too_frequent_and_their_fault_are_tried_again(didi: DidiStandin, errno: int) -> None:
    didi.fail_next(EDIT, *[Fault(200, {"errno": errno, "errmsg": ""})] * 2)
    didi_client(didi, edit_interval_ms=0).sync.member_edit({"realname": "李四"}, employee_number="E00001")
    assert didi.calls[EDIT] == 3 and didi.members["E00001"]["realname"] == "李四"


@pytest.mark.parametrize("http_401", [False, True])
def test_a_dead_token_is_renewed_once(didi: DidiStandin, http_401: bool) -> None:
    didi.switches.dead_token_as_http_401 = http_401
    didi.switches.errno_as_text = True
    client = didi_client(didi)
    client.sync.authenticate()
    didi.tokens.clear()
    assert client.sync.member_detail(employee_number="E00001")["employee_number"] == "E00001"
    didi.switches.refuse_every_token = True
    with pytest.raises(CredentialsError, match="even a fresh one"):
        client.sync.member_detail(employee_number="E00001")
    assert didi.calls[AUTHORIZE] == 3 and didi.calls[DETAIL] == 4


def test_a_token_is_used_for_its_lifetime(didi: DidiStandin) -> None:
    client = didi_client(didi, phone="13800000000")
    for lifetime, logins in ((0, 2), (1800, 3), (1800, 3)):
        didi.switches.expires_in = lifetime
        client.sync.member_detail(employee_number="E00001")
        client.sync.member_detail(employee_number="E00001")
        assert didi.calls[AUTHORIZE] == logins
    assert didi.authorized == ["13800000000"] * 3


@pytest.mark.parametrize(
    ("answer", "lifetime"),
    [({"expires_in": 1800}, 1740), ({"expires_in": "60"}, 30), ({}, 1740), ({"expires_in": "?"}, 1740)],
)
def test_a_token_is_given_up_a_minute_early_or_after_half_a_short_life(
    didi: DidiStandin, answer: dict[str, object], lifetime: float
) -> None:
    async def log_in() -> float:
        return (await didi_client(didi)._log_in()).lifetime

    didi.fail_next(AUTHORIZE, Fault(200, {"access_token": "a-token", **answer}))
    assert runtime().wait(log_in()) == lifetime


@pytest.mark.parametrize("text", ["E\ud800", "9" * 100_000])
def test_a_value_that_cannot_be_sent_is_an_error_of_its_record(didi: DidiStandin, text: str) -> None:
    sync = didi_client(didi).sync
    for call, argument in ((sync.member_detail, "employee_number"), (sync.find_legal_entity, "name")):
        with pytest.raises(DataError, match="cannot be s") as caught:
            call(**{argument: text})
        assert text not in str(caught.value)
    with pytest.raises(DataError):
        sync.member_edit({"realname": text}, employee_number="nobody")
    assert didi.calls[DETAIL] == didi.calls[ENTITIES] == 0


def test_refusals_of_the_log_in(didi: DidiStandin) -> None:
    with pytest.raises(ConfigurationError, match="check sign_key"):
        didi_client(didi, sign_key="another").sync.authenticate()
    with pytest.raises(CredentialsError, match="check client_id and client_secret"):
        didi_client(didi, client_secret="another").sync.authenticate()
    didi.switches.clock_off_s = 3600
    with pytest.raises(ConfigurationError, match="set the clock"):
        didi_client(didi).sync.authenticate()


def test_legal_entities_of_all_pages(didi: DidiStandin) -> None:
    didi.entities = [(str(2**64 + n), f"公司{n}") for n in range(201)]
    found = didi_client(didi).sync.legal_entities(keyword="公司")
    assert [entity["legal_entity_id"] for entity in found] == [number for number, _ in didi.entities]
    assert didi.calls[ENTITIES] == 3


def test_a_legal_entity_by_its_exact_name(didi: DidiStandin) -> None:
    client = didi_client(didi)
    for number, name in didi.entities:
        if name != "广州双胞胎有限公司":
            assert client.sync.find_legal_entity(name)["legal_entity_id"] == number
    (entity,) = client.sync.legal_entities(legal_entity_id="18446744073709551617")
    assert entity["name"] == "上海示例科技有限公司二部"
    for name, reason in (("上海示例科技", "no legal entity"), ("广州双胞胎有限公司", "2 legal entities")):
        with pytest.raises(DataError, match=reason):
            client.sync.find_legal_entity(name)
    didi.fail_next(ENTITIES, Fault(200, {"errno": 0, "data": {"total": 1, "records": [None]}}))
    with pytest.raises(RemoteError, match="holds no records"):
        didi_client(didi, retry_delays=()).sync.find_legal_entity("上海示例科技")
    didi.entities = [("1", " 只有空格不同 ")]
    assert client.sync.find_legal_entity("只有空格不同")["legal_entity_id"] == "1"


def test_members(didi: DidiStandin) -> None:
    client = didi_client(didi)
    member = client.sync.member_detail(employee_number="E00002")
    assert client.sync.member_detail(member_id=member["member_id"]) == member
    didi.members["E00002"]["legal_entity_id"] = 2**64
    assert client.sync.member_detail(phone=member["phone"])["legal_entity_id"] == str(2**64)
    didi.members["E00002"]["legal_entity_id"] = None
    assert client.sync.member_detail(employee_number="E00002")["legal_entity_id"] == ""
    didi.fail_next(DETAIL, Fault(200, '{"errno": 0, "data": {"legal_entity_id": 9007199254740993.0}}'))
    assert client.sync.member_detail(phone=member["phone"])["legal_entity_id"] == "9007199254740993.0"
    with pytest.raises(ValueError, match="exactly one of"):
        client.sync.member_detail()
    didi.fail_next(DETAIL, Fault(200, {"errno": 0, "data": None}))
    with pytest.raises(DataError, match="unknown"):
        client.sync.member_detail(employee_number="E00002")


def test_blank_values_are_no_change(didi: DidiStandin) -> None:
    client, held = didi_client(didi, edit_interval_ms=0), didi.members["E00001"]
    blank: dict[str, Any] = {"phone": " ", "status": None, "roles": [], "more": {}}
    client.sync.member_edit({"realname": "王五 & 子=女%", **blank}, employee_number="E00001")
    assert held["realname"] == "王五 & 子=女%" and held["phone"].startswith("138")
    assert held["status"] == 1 and not held.keys() & {"roles", "more"}
    client.sync.member_edit({"status": 0, "is_remark": False}, employee_number="E00001")
    assert (held["status"], held["is_remark"]) == (0, False), "which say something"
    client.sync.member_edit({"phone": ""}, member_id=held["member_id"], keep_blank=True)
    assert held["phone"] == ""
    with pytest.raises(ValueError, match="no field to change"):
        client.sync.member_edit({"phone": ""}, employee_number="E00001")
    with pytest.raises(DataError, match="member is unknown"):
        client.sync.member_edit({"phone": "1"}, employee_number="nobody")


def test_companies_and_systems_do_not_wait_for_each_other(didi: DidiStandin) -> None:
    done = Fault(200, {"errno": 0, "data": None})
    change, didi.switches.min_interval_ms = {"realname": "李四"}, 0

    async def edit(standin: DidiStandin, **options: Any) -> None:
        client = didi_client(standin, edit_interval_ms=60_000, **options)
        await asyncio.wait_for(client.member_edit(change, employee_number="E00001"), 5)

    with DidiStandin(make_dataset(30)) as elsewhere:
        for standin, options in ((didi, {}), (didi, {"company_id": "another"}), (elsewhere, {})):
            standin.fail_next(EDIT, done)
            asyncio.run(edit(standin, **options))
    assert (didi.calls[EDIT], elsewhere.calls[EDIT]) == (2, 1)
