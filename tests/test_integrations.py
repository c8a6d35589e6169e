"""What the clients share: the hand-over, tokens, retries, intervals, and that no secret gets out."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from connecthub.errors import ConfigurationError, CredentialsError, IntegrationError, RemoteError
from connecthub.integrations import SeeyonClient
from connecthub.integrations.loop import runtime
from tests.standins import DidiStandin, Fault, OaStandin, make_dataset
from tests.standins.clients import QUERY, didi_client, forget_tokens, oa_client
from tests.standins.didi import AUTHORIZE, DETAIL, EDIT
from tests.standins.didi import SECRETS as DIDI
from tests.standins.oa import EXPORT, TOKEN
from tests.standins.oa import SECRETS as OA

RUN: ContextVar[str] = ContextVar("RUN", default="nobody's")


@pytest.fixture(autouse=True)
def _no_token_of_another_test() -> None:
    forget_tokens()


@pytest.fixture
def oa() -> Iterator[OaStandin]:
    with OaStandin(make_dataset(30)) as standin:
        yield standin


@pytest.fixture
def didi() -> Iterator[DidiStandin]:
    with DidiStandin(make_dataset(30)) as standin:
        yield standin


async def gathered(*work: Any) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


def test_fifty_tasks_log_in_once(oa: OaStandin) -> None:
    tokens = asyncio.run(gathered(*(oa_client(oa).authenticate() for _ in range(50))))
    assert len(set(tokens)) == 1 and oa.calls[TOKEN] == 1


def test_a_refused_log_in_is_refused_to_all_who_wait_and_asked_once(oa: OaStandin) -> None:
    async def answer_when_asked() -> None:
        assert await asyncio.to_thread(oa.held.wait, 5)
        oa.release()

    oa.hold = TOKEN
    asking = (oa_client(oa, "wrong").authenticate() for _ in range(50))
    *errors, _ = asyncio.run(gathered(*asking, answer_when_asked()))
    assert {type(error) for error in errors} == {CredentialsError} and oa.calls[TOKEN] == 1
    assert len({id(error) for error in errors}) == 50


def test_a_dead_token_is_renewed_once_for_all(oa: OaStandin) -> None:
    async def scenario() -> list[Any]:
        await oa_client(oa).authenticate()
        oa.tokens.clear()
        return await gathered(*(oa_client(oa).export_raw(QUERY) for _ in range(20)))

    pages = asyncio.run(scenario())
    assert [len(page.rows) for page in pages] == [30] * 20
    assert oa.calls[TOKEN] == 2


def test_other_credentials_do_not_share_the_token(oa: OaStandin) -> None:
    oa_client(oa).sync.authenticate()
    with pytest.raises(CredentialsError):
        oa_client(oa, "wrong").sync.authenticate()


def test_each_client_has_the_token_masked_even_a_cached_one(oa: OaStandin) -> None:
    masked: list[str] = []
    tokens = [oa_client(oa, mask=masked.append).sync.authenticate() for _ in range(2)]
    assert masked == tokens and oa.calls[TOKEN] == 1


def test_an_unused_token_grows_old_and_a_used_one_does_not(oa: OaStandin) -> None:
    client = oa_client(oa, token_idle_s=0)
    client.sync.authenticate()
    client.sync.authenticate()
    assert oa.calls[TOKEN] == 2

    async def rest_of_life(client: SeeyonClient) -> float:
        (slot,) = runtime().slots.values()
        return slot._expires_at - asyncio.get_running_loop().time()

    client = oa_client(oa)
    client.sync.authenticate(fresh=True)
    (slot,) = runtime().slots.values()
    slot._expires_at -= 500
    client.sync.export_raw(QUERY)
    assert runtime().wait(rest_of_life(client)) > 590


def test_any_loop_and_any_thread_over_one_connection(oa: OaStandin) -> None:
    for _ in range(3):
        asyncio.run(oa_client(oa).export_raw(QUERY))
    oa_client(oa).sync.export_raw(QUERY)
    assert len(oa.peers) == 1 and oa.calls[EXPORT] == 4


def test_log_lines_are_made_in_the_context_of_the_caller(
    oa: OaStandin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: Counter[str] = Counter()

    def note_owner(record: logging.LogRecord) -> bool:
        owners[RUN.get()] += EXPORT in record.getMessage()
        return True

    async def run(name: str) -> None:
        RUN.set(name)
        await oa_client(oa).export_raw(QUERY)

    def thread() -> None:
        RUN.set("thread")
        oa_client(oa).sync.export_raw(QUERY)

    caplog.set_level(logging.DEBUG, logger="connecthub.integrations.http")
    monkeypatch.setattr(caplog.handler, "filters", [note_owner])
    asyncio.run(gathered(run("first"), run("second")))
    worker = threading.Thread(target=thread)
    worker.start()
    worker.join()
    assert owners == {"first": 1, "second": 1, "thread": 1}


async def cancelled_while_held(standin: OaStandin | DidiStandin, work: Any) -> None:
    task = asyncio.create_task(work)
    assert await asyncio.to_thread(standin.held.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(standin.dropped.wait, 5)


@pytest.mark.parametrize("path", [TOKEN, EXPORT])
def test_cancelling_the_caller_hangs_up(oa: OaStandin, path: str) -> None:
    oa.hold = path
    asyncio.run(cancelled_while_held(oa, oa_client(oa).export_raw(QUERY)))


def test_a_cancelled_edit_lets_the_next_one_pass(didi: DidiStandin) -> None:
    didi.hold = EDIT
    (number, *_), entity = didi.members, didi.entities[0][0]
    change = {"legal_entity_id": entity}
    asyncio.run(cancelled_while_held(didi, didi_client(didi).member_edit(change, employee_number=number)))
    didi.release()
    didi_client(didi).sync.member_edit(change, employee_number=number)
    assert didi.edited() == {number: entity}


def test_a_log_in_goes_on_for_the_others_when_its_first_caller_is_cancelled(oa: OaStandin) -> None:
    async def scenario() -> str:
        oa.hold = TOKEN
        first = asyncio.create_task(oa_client(oa).authenticate())
        await asyncio.to_thread(oa.held.wait, 5)
        told = threading.Event()
        second = asyncio.create_task(oa_client(oa, mask=lambda _: told.set()).authenticate())
        await runtime().run(asyncio.sleep(0))  # the second has joined by now
        first.cancel()
        await runtime().run(asyncio.sleep(0))
        oa.release()
        return await second

    assert asyncio.run(scenario()) in oa.tokens
    assert oa.calls[TOKEN] == 1


def test_look_ups_that_hang_hold_up_no_other_call(oa: OaStandin, monkeypatch: pytest.MonkeyPatch) -> None:
    as_many_as_asyncio_has = min(32, (os.cpu_count() or 1) + 4)  # threads of its own for them
    hanging, over, look_up = threading.Semaphore(0), threading.Event(), socket.getaddrinfo

    def look_up_here(host: Any, *args: Any, **kwargs: Any) -> Any:
        if "hangs.invalid" in str(host):
            hanging.release()
            over.wait(30)
        return look_up("127.0.0.1", *args, **kwargs)

    def client(host: str, user: str) -> SeeyonClient:
        return SeeyonClient(oa.url.replace("127.0.0.1", host), user, OA["rest_password"], retry_delays=())

    async def scenario() -> str:
        numbers = range(as_many_as_asyncio_has)
        others = [asyncio.create_task(client("hangs.invalid", f"user-{n}").authenticate()) for n in numbers]
        try:
            for _ in others:
                assert await asyncio.to_thread(hanging.acquire, timeout=5)
            return await asyncio.wait_for(client("oa.invalid", OA["rest_user"]).authenticate(), 5)
        finally:
            over.set()
            await gathered(*others)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    assert asyncio.run(scenario()) in oa.tokens


def test_a_caller_whose_own_code_exits_ends_nobody_elses_calls(oa: OaStandin) -> None:
    async def soon(client: SeeyonClient) -> str:
        async with asyncio.timeout(5):
            return await client.authenticate()

    with pytest.raises(SystemExit):
        asyncio.run(soon(oa_client(oa, mask=sys.exit)))
    assert asyncio.run(soon(oa_client(oa))) in oa.tokens


def test_the_synchronous_face_has_the_same_names(oa: OaStandin) -> None:
    client = oa_client(oa)
    assert client.sync.authenticate() in oa.tokens
    assert [row.number for row in client.sync.export_rows(QUERY, page_size=20)] == list(range(1, 31))
    assert next(client.sync.export_rows(QUERY)).number == 1
    with pytest.raises(AttributeError, match="no asynchronous method"):
        _ = client.sync.base_url

    async def on_a_loop() -> None:
        with pytest.raises(RuntimeError, match="await the method"):
            client.sync.authenticate()

    asyncio.run(on_a_loop())


def test_the_interval_is_kept_between_all_clients_of_a_company(didi: DidiStandin) -> None:
    didi.switches.min_interval_ms = 30
    numbers, entity = list(didi.members)[:6], didi.entities[0][0]

    async def edit(number: str) -> None:
        client = didi_client(didi, edit_interval_ms=30)
        await client.member_edit({"legal_entity_id": entity}, employee_number=number)

    async def several(part: list[str]) -> None:
        await asyncio.gather(*map(edit, part))

    threads = [
        threading.Thread(target=asyncio.run, args=(several(part),)) for part in (numbers[:3], numbers[3:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert didi.violations == [] and sorted(didi.edited()) == sorted(numbers)
    assert all(edit["gap_ms"] >= 30 for edit in didi.edits[1:])


def test_150_ms_lie_between_edits_by_default(didi: DidiStandin) -> None:
    for number in list(didi.members)[:2]:
        didi_client(didi).sync.member_edit({"realname": "李四"}, employee_number=number)
    assert didi.violations == [] and didi.edits[1]["gap_ms"] >= 150


def test_their_fault_is_tried_again_and_not_for_ever(oa: OaStandin) -> None:
    oa.fail_next(EXPORT, Fault(503), Fault(429))
    assert len(oa_client(oa).sync.export_raw(QUERY).rows) == 30
    oa.fail_next(EXPORT, *[Fault(502)] * 3)
    with pytest.raises(RemoteError, match="HTTP 502") as caught:
        oa_client(oa).sync.export_raw(QUERY)
    assert caught.value.code == "502" and oa.calls[EXPORT] == 6


def test_silence_and_a_closed_port_are_their_fault(oa: OaStandin) -> None:
    oa.hold = EXPORT
    with pytest.raises(RemoteError, match="no answer in time"):
        oa_client(oa, read_timeout=0.05, retry_delays=()).sync.export_raw(QUERY)
    oa.release()
    with OaStandin(make_dataset(30)) as gone:
        pass
    with pytest.raises(RemoteError, match="no connection"):
        oa_client(gone).sync.authenticate()


@pytest.mark.parametrize(
    "url", ["oa.example.com", "ftp://oa", "http://", "http://u:canary@oa", "http://oa/?k=canary"]
)
def test_a_base_url_that_cannot_be_one_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SeeyonClient(url, "user", "password")
    assert "canary" not in str(caught.value)


def test_no_secret_in_any_error_or_log_line(
    oa: OaStandin, didi: DidiStandin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    tokens: list[str] = []

    def failing(method: Any, *args: Any, **kwargs: Any) -> None:
        with pytest.raises(IntegrationError) as caught:
            method(*args, **kwargs)
        said.append("".join(traceback.format_exception(caught.value)))

    company, member = didi_client(didi, mask=tokens.append), {"employee_number": "E00001"}
    company.sync.member_detail(**member)
    company.sync.member_edit({"realname": "李四"}, **member)
    form = oa_client(oa, mask=tokens.append)
    form.sync.export_raw(QUERY)
    (oa_token,) = oa.tokens
    echo = " ".join([*OA.values(), oa_token])
    oa.fail_next(EXPORT, Fault(200, {"code": 1, "message": echo}), Fault(500, echo), Fault(418, echo))
    failing(form.sync.export_raw, QUERY)
    failing(form.sync.export_raw, QUERY)
    failing(oa_client(oa, "another-password").sync.authenticate)
    failing(didi_client(didi, sign_key="another-key").sync.authenticate)
    failing(didi_client(didi, client_secret="another-secret").sync.authenticate)
    failing(didi_client(didi, company_id="another-company").sync.member_detail, **member)
    echo = " ".join([*DIDI.values(), tokens[0]])
    didi.fail_next(DETAIL, Fault(200, {"errno": 10003, "errmsg": echo, "request_id": echo}))
    failing(company.sync.member_detail, **member)
    didi.hold = DETAIL
    failing(didi_client(didi, read_timeout=0.05, retry_delays=()).sync.member_detail, **member)
    didi.release()
    others = ["another-password", "another-key", "another-secret", "another-company"]
    everything = caplog.text + "".join(said)
    for secret in [*OA.values(), *DIDI.values(), *tokens, *oa.tokens, *didi.tokens, *others]:
        assert secret not in everything and quote(secret) not in everything
    assert "access_token=" not in everything and "sign_key=" not in everything
    assert "request_id req-" in caplog.text and didi.calls[AUTHORIZE] >= 3


def test_the_log_of_a_plugins_own_http_calls_stays(oa: OaStandin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="httpx")
    oa_client(oa).sync.authenticate()
    assert caplog.text == ""
    httpx.get(f"{oa.url}/_standin/state")
    assert "/_standin/state" in caplog.text
