"""What one row or one employee can do to the synchronisation: fail alone, or tell that all will fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from connecthub.integrations.seeyon import Cell, ExportRow, FormField
from extensions.sync_oa_to_didi.sync import Report, SyncError, read_assignments
from tests.extension_hub import COMPANY, Hub, serving
from tests.standins import Fault, oa_row
from tests.standins.didi import DETAIL, EDIT, ENTITIES

_NO_ID = '[{"name": "没有编号", "legal_entity_id": null}]}}'  # the end of an answer of LegalEntity/get


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from serving(40)


def test_a_row_that_is_none_fails_alone(hub: Hub) -> None:
    good = [oa_row(f"E{number:05}", COMPANY) for number in range(3)]
    hub.rows(*good)
    bad: list[Any] = [
        {"subData": {}},
        {"masterData": None},
        None,
        "a row",
        {"masterData": {"field0001": "x"}},
    ]
    for number, company in (("E\x00", COMPANY), ("E9", "A\x00B"), ("9" * 100_000, COMPANY)):
        bad.append(oa_row(number, company))
    hub.data.rows = [good[0], *bad, *good[1:]]
    result = hub.sync()
    assert (result["total"], result["success"], result["failed"]) == (11, 3, 8)
    assert [error["row"] for error in result["errors"]] == list(range(2, 10))
    text = json.dumps(result, ensure_ascii=False)
    assert "\\u0000" not in text and text.encode() and len(text) < 5000


def test_a_lone_surrogate_is_told_in_a_form_that_can_be_stored() -> None:
    fields = (FormField("a", "工号", "", ""), FormField("b", "所属公司", "", ""))
    cells = {"a": Cell("E\ud800", ""), "b": Cell(COMPANY, "")}
    report = Report(1, lambda done, total: None)
    assert read_assignments([ExportRow(1, fields, cells)], report) == []
    assert json.dumps(report.errors, ensure_ascii=False).encode()


def test_a_malformed_row_is_told_with_its_employee_where_that_can_be_read(hub: Hub) -> None:
    hub.rows(oa_row("E00001", COMPANY), oa_row("E00002", COMPANY))
    hub.data.rows.append(oa_row("E0\n3", "A\x00B"))
    hub.data.rows[1]["masterData"]["field0003"] = "plain text"
    assert hub.sync()["errors"] == [
        {"row": 2, "employee_number": "E00002", "error": "the cell field0003 of the export cannot be read"},
        {"row": 3, "employee_number": "E0 3", "error": "所属公司 holds what no name or number holds"},
    ]


def test_a_row_without_the_one_of_two_fields_of_a_name_fails_alone(hub: Hub) -> None:
    hub.rows(oa_row("E00001", COMPANY), oa_row("E00002", COMPANY), oa_row("E00003", COMPANY))
    hub.data.fields.append(hub.data.fields[0] | {"name": "field0009"})
    hub.data.rows[1]["masterData"]["field0009"] = {"value": "E00009", "showValue": "E00009"}
    hub.data.rows[2]["masterData"] = None
    result = hub.sync()
    assert result["success"] == 1 and [error["row"] for error in result["errors"]] == [2, 3]
    assert "exactly one of the fields displayed as 工号" in result["errors"][0]["error"]


def test_what_the_clients_refuse_or_didi_says_fails_the_row_in_clean_text(hub: Hub) -> None:
    hub.rows(*(oa_row(f"E{n:05d}", COMPANY) for n in range(1, 4)), oa_row("E00004", "没有编号"))
    half = '{"errno": 0, "data": {"legal_entity_id": "\\ud800\\u0000"}}'
    said = {"errno": 50222, "errmsg": "a\x00\n" + "b" * 5000, "request_id": "c" * 5000}
    hub.didi.fail_next(ENTITIES, None, Fault(200, '{"errno": 0, "data": {"total": 1, "records": ' + _NO_ID))
    hub.didi.fail_next(DETAIL, Fault(200, half), Fault(200, said))
    dry = hub.sync(dry_run=True)
    assert dry["changes"][0]["from"] == "\\ud800\\0"
    refused, nameless = (error["error"] for error in dry["errors"])
    assert "a\\0 b" in refused and len(refused) < 1000
    assert nameless == "DiDi holds 没有编号 without an id"
    hub.didi.fail_next(ENTITIES, None, Fault(200, '{"errno": 0, "data": {"total": 1, "records": ' + _NO_ID))
    result = hub.sync()
    assert (result["success"], result["failed"]) == (3, 1)
    assert result["errors"][0]["error"] == nameless


@pytest.mark.parametrize("errno", [400, 10003])
@pytest.mark.parametrize("path", [DETAIL, EDIT])
def test_parameters_that_didi_refuses_never_end_the_run(hub: Hub, errno: int, path: str) -> None:
    hub.rows(*(oa_row(f"E{number:05}", COMPANY) for number in range(30)))
    hub.didi.fail_next(path, *[Fault(200, {"errno": errno, "errmsg": "bad parameter"})] * 12)
    result = hub.sync()
    assert (result["success"], result["failed"]) == (18, 12)


def test_a_permission_refused_for_one_edit_fails_that_row(hub: Hub) -> None:
    hub.rows(*(oa_row(f"E{number:05}", COMPANY) for number in range(3)))
    hub.didi.fail_next(EDIT, Fault(200, {"errno": 10002, "errmsg": "no permission"}))
    result = hub.sync()
    assert result["success"] == 2 and "errno 10002" in result["errors"][0]["error"]


def test_a_permission_that_no_edit_has_ends_the_run_after_ten(hub: Hub) -> None:
    hub.rows(*(oa_row(f"E{number:05}", COMPANY) for number in range(30)))
    refused = Fault(200, {"errno": 10002, "errmsg": "no permission"})
    hub.didi.fail_next(EDIT, *[refused] * 10)
    with pytest.raises(SyncError, match=r"gave up after 10 employees in a row.*errno 10002"):
        hub.sync()
    assert hub.didi.calls[EDIT] == 10
    hub.didi.fail_next(EDIT, None, *[refused] * 12)
    result = hub.sync()
    assert (result["success"], result["failed"]) == (18, 12)


def test_one_bad_row_does_not_end_the_run(hub: Hub) -> None:
    hub.rows(*(oa_row(f"E{n:05d}", COMPANY) for n in range(1, 6)))
    hub.didi.fail_next(DETAIL, Fault(200, {"errno": 10003, "errmsg": "bad parameter"}))
    hub.didi.fail_next(EDIT, Fault(200, {"errno": 4711, "errmsg": "?"}))
    result = hub.sync()
    assert (result["success"], result["failed"]) == (3, 2)
