"""The three example Jobs, run as the hub runs them, against the stand-ins."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from connecthub.errors import AccessError, ConfigurationError, CredentialsError
from extensions.sync_oa_to_didi.job import (
    SyncOAToDidiExportFormJob,
    SyncOAToDidiLegalEntitySyncJob,
    SyncOAToDidiTokenJob,
)
from extensions.sync_oa_to_didi.sync import SyncError
from tests.extension_hub import COMPANY, COMPANY_ID, Hub, serving
from tests.standins import Fault, make_dataset, oa_row
from tests.standins.clients import forget_tokens
from tests.standins.didi import DETAIL, EDIT, ENTITIES
from tests.standins.didi import SECRETS as DIDI
from tests.standins.oa import SECRETS as OA


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from serving(40)


def test_1250_rows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    forget_tokens()
    hub = Hub(make_dataset(1250))
    expected = hub.data.expected
    with hub.oa, hub.didi:
        hub.didi.switches.min_interval_ms = 20
        result = hub.sync(edit_interval_ms=20)
        assert (expected.success, expected.total) == (40, 1250)
        assert {name: result[name] for name in ("total", "success", "skipped", "failed")} == {
            "total": 1250,
            "success": 40,
            "skipped": expected.skipped,
            "failed": expected.failed,
        }
        assert [error["row"] for error in result["errors"]] == expected.failed_rows
        assert hub.didi.edited() == expected.edits and len(hub.didi.edits) == 40
        assert hub.didi.violations == hub.oa.violations == []
        assert len(hub.oa.exports) == 3 and hub.didi.calls[ENTITIES] == 11  # once per name
        assert hub.progress == sorted(hub.progress) and hub.progress[-1] == (1250, 1250)
        assert set(hub.masked) == hub.oa.tokens | hub.didi.tokens
        for secret in [*OA.values(), *DIDI.values(), *hub.masked]:
            assert secret not in caplog.text
        again = hub.sync(edit_interval_ms=20)
        assert (again["success"], again["failed"]) == (0, expected.failed) and len(hub.didi.edits) == 40


def test_a_dry_run_lists_the_changes_and_edits_nothing(hub: Hub) -> None:
    before = copy.deepcopy(hub.didi.members)
    result = hub.sync(dry_run=True)
    assert {each["employee_number"]: each["to"] for each in result["changes"]} == hub.data.expected.edits
    assert all(
        each["from"] == before[each["employee_number"]]["legal_entity_id"] for each in result["changes"]
    )
    assert result["success"] == 0 and len(result["changes"]) + result["skipped"] + result["failed"] == 40
    assert hub.didi.members == before and hub.didi.calls[EDIT] == 0


def test_too_many_edits_fail_before_the_first(hub: Hub) -> None:
    hub.rows(oa_row("E00001", COMPANY), oa_row("E00002", COMPANY))
    with pytest.raises(SyncError, match="2 edits would exceed max_edits 1: nothing was edited"):
        hub.sync(max_edits=1)
    assert hub.didi.calls[EDIT] == 0
    assert hub.sync(max_edits=2)["success"] == 2


def test_blanks_are_stripped_and_blank_cells_fail(hub: Hub) -> None:
    hub.rows(oa_row(" E00001\t", f"\u3000{COMPANY} "), oa_row(" ", COMPANY), oa_row("E00003", "\n"))
    result = hub.sync()
    assert hub.didi.edited() == {"E00001": COMPANY_ID}
    assert result == {
        "total": 3,
        "success": 1,
        "skipped": 0,
        "failed": 2,
        "errors": [
            {"row": 2, "employee_number": "", "error": "工号 is blank"},
            {"row": 3, "employee_number": "E00003", "error": "所属公司 is blank"},
        ],
    }


def test_an_employee_in_several_rows(hub: Hub) -> None:
    same, other = oa_row("E00001", COMPANY), oa_row("E00002", COMPANY)
    hub.rows(same, other, same, oa_row("E00002", "北京示例科技有限公司"), oa_row("E00003", COMPANY))
    result = hub.sync()
    assert hub.didi.edited() == {"E00001": COMPANY_ID, "E00003": COMPANY_ID} and len(hub.didi.edits) == 2
    assert (result["success"], result["skipped"], result["failed"]) == (2, 1, 2)
    assert [error["row"] for error in result["errors"]] == [2, 4]
    assert "different companies" in result["errors"][0]["error"]


def test_the_interval_of_the_job_is_kept(hub: Hub) -> None:
    hub.rows(oa_row("E00001", COMPANY), oa_row("E00002", COMPANY))
    hub.sync(edit_interval_ms=220)
    assert hub.didi.edits[1]["gap_ms"] >= 220


def test_only_the_first_50_errors_are_kept_and_all_are_counted(hub: Hub) -> None:
    hub.rows(oa_row("E00001", COMPANY), *(oa_row(" ", COMPANY) for _ in range(60)))
    result = hub.sync()
    assert result["failed"] == 60 and [error["row"] for error in result["errors"]] == list(range(2, 52))


def test_no_false_success(hub: Hub) -> None:
    hub.rows(oa_row("E00001", "没有这家公司"), oa_row("E00002", ""))
    with pytest.raises(SyncError, match="every row failed; 2 rows: 0 edited, 0 already right, 2 failed"):
        hub.sync()
    hub.data.fields = [each for each in hub.data.fields if each["display"] != "所属公司"]
    with pytest.raises(SyncError, match="no field displayed as 所属公司"):
        hub.sync()
    hub.rows()
    with pytest.raises(SyncError, match="no rows"):
        hub.sync()


def test_every_edit_refused_is_a_failure_too(hub: Hub) -> None:
    hub.rows(oa_row("E00001", COMPANY))
    hub.didi.fail_next(EDIT, Fault(200, {"errno": 50223, "errmsg": "update failed"}))
    with pytest.raises(SyncError, match=r"every row failed.*errno 50223"):
        hub.sync()


@pytest.mark.parametrize(
    ("secrets", "cause"),
    [
        ({"rest_password": "wrong"}, CredentialsError),
        ({"client_secret": "wrong"}, CredentialsError),
        ({"sign_key": "wrong"}, ConfigurationError),
    ],
)
def test_what_concerns_every_row_ends_the_run_at_once(hub: Hub, secrets: dict[str, str], cause: type) -> None:
    with pytest.raises(cause):
        hub.sync(secrets)
    assert hub.didi.calls[DETAIL] == 0


def test_a_missing_permission_ends_the_run_at_once(hub: Hub) -> None:
    hub.didi.switches.no_permission = True
    with pytest.raises(AccessError):
        hub.sync()
    assert sum(hub.didi.calls.values()) == 2


def test_ten_in_a_row_that_fail_for_a_shared_reason_end_the_run(hub: Hub) -> None:
    hub.rows(*(oa_row(f"E{n:05d}", COMPANY) for n in range(1, 31)))
    with pytest.raises(SyncError, match=r"gave up after 10 employees in a row.*errno 12001.*30 rows"):
        hub.sync({"company_id": "another"})
    assert hub.didi.calls[EDIT] == 0


def test_a_cancelled_run_stops_at_once(hub: Hub) -> None:
    hub.rows(*(oa_row(f"E{n:05d}", COMPANY) for n in range(1, 4)))
    hub.didi.hold = EDIT
    job = SyncOAToDidiLegalEntitySyncJob()

    async def cancelled() -> None:
        run = asyncio.create_task(hub.run(job, *hub.settings(job)))
        assert await asyncio.to_thread(hub.didi.held.wait, 5)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(cancelled())
    assert hub.didi.dropped.wait(5) and hub.didi.calls[EDIT] == 1


def test_the_token_job(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    job = SyncOAToDidiTokenJob()
    for _ in range(2):
        result = asyncio.run(hub.run(job, *hub.settings(job)))
        (token,) = hub.masked
        assert result["token"] == f"{token[:4]}****" and result["token"] in caplog.text
        assert token not in caplog.text + str(result)
    assert len(hub.oa.tokens) == 2  # each run really asked


def test_the_export_job(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="extensions")
    job = SyncOAToDidiExportFormJob()
    public, secret = hub.settings(job)
    public |= {
        "beginDateTime": "2026-01-01",
        "endDateTime": "",
        "doTrigger": False,
        "extra": {"pageSize": 39},
    }
    result = asyncio.run(hub.run(job, public, secret))
    *chunks, warning = caplog.records
    assert "".join(record.getMessage() for record in chunks) == result["raw"] and len(chunks) > 1
    assert result["meta"]["content_length"] == len(result["raw"].encode())
    assert "page 1 is full" in warning.getMessage() and "{'page': 2}" in warning.getMessage()
    sent = {
        "templateCode": "HR001",
        "beginDateTime": "2026-01-01",
        "doTrigger": False,
        "page": 1,
        "pageSize": 39,
    }
    assert hub.oa.exports == [sent]
    hub.oa.switches.inner_success = 0
    with pytest.raises(ConfigurationError):
        asyncio.run(hub.run(job, public, secret))


def test_the_models_refuse_what_they_do_not_know_and_quote_no_value() -> None:
    secrets: dict[str, Any] = {**OA, **DIDI, "sign_key": "", "singn_key": "canary", "client_id": ["canary"]}
    with pytest.raises(ValidationError) as caught:
        SyncOAToDidiLegalEntitySyncJob.Secrets.model_validate(secrets)
    assert [error["loc"] for error in caught.value.errors()] == [
        ("client_id",),
        ("sign_key",),
        ("singn_key",),
    ]
    assert "canary" not in str(caught.value)
    for job in (SyncOAToDidiTokenJob, SyncOAToDidiExportFormJob, SyncOAToDidiLegalEntitySyncJob):
        for model in (job.Params, job.Secrets):
            assert all(field.description for field in model.model_fields.values())
