"""Values that nobody would type: no page and no form may break of them, whatever field they stand in."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.web_hub import GOOD, OWN, Hub, insert_job, insert_run

pytest_plugins = ["tests.web_hub"]

ODD = [
    "0", "-1", str(2**63 - 1), "9" * 40, "1" * 400, "9" * 5000, "NaN", "٣", "x", "\x00", "..", "\n",
    "<b>{{7*7}}", "9999-12-31T23:59:59.999999+00:00", "0001-01-01T00:00", "2026-02-30",
    "2026-11-28T10:00+99:00", "Mars/Base", "../../etc/passwd", "60 * * * *", "0 0 31 2 *", "[" * 20_000,
    '{"a": 1e999}', '{"a": "\\u0000"}', "null",
]  # fmt: skip
QUERIES = {
    "/admin/": "strips hours",
    "/admin/login": "next lang",
    "/admin/jobs/list": "q tag state sort page pageSize said n undo",
    "/admin/joblogs/list": "job status reason trigger span from to q before after",
    "/admin/joblogs/csv": "job status reason trigger span from to q",
    "/admin/joblogs/details/1": "tab confirm",
    "/admin/joblogs/1/log/stream": "line",
    "/admin/users/list": "q page pageSize",
    "/admin/audit": "user action object from to before",
    "/admin/audit.csv": "user action object from to",
    "/admin/search": "q",
    "/admin/pause": "next",
    "/admin/jobs/create": "handler",
    "/admin/jobs/details/sync-1?tab=revisions": "before of",
    "/admin/jobs/details/sync-1?tab=why&at=2026-11-28T10:00": "zone at",
    "/admin/jobs-bulk/confirm?action=delete": "id all back q tag state",
}
# Beside these stands a good definition, so that each value gets as far as it can.
TYPED = {**GOOD, "id": "new", "handler_path": "webjobs.jobs:TypedJob"}
DEFINITION = (
    "id name tags cron_expr timezone handler_path public_cfg secret_cfg misfire misfire_window_s overlap"
    " timeout_s max_attempts retry_delays priority params_base p.base_url p.hours s.token nk.1 nv.1 r.token"
    " do token revision"
)
FIELDS = {
    "/admin/jobs/preview": f"of {DEFINITION}",
    "/admin/jobs/create": DEFINITION,
    "/admin/jobs/sync-1/run": "public_cfg params_base p.base_url p.hours try token",
    "/admin/joblogs/1/retry": "settings seen",
    "/admin/jobs-bulk/run": "ids back token",
    "/admin/jobs-bulk/enable": "ids back undo",
    "/admin/jobs-bulk/delete": "ids back typed",
    "/admin/jobs/restore/1/sync-1": "revision",
    "/admin/users/create": "username role",
    "/admin/users/role": "username role",
    "/admin/users/sessions": "username",
    "/admin/language": "language next",
    "/admin/account": "language timezone theme",
    "/admin/account/sessions": "session",
    "/admin/account/password": "current new again",
}


@pytest.fixture
def filled(hub: Hub) -> Hub:
    insert_job(hub)
    insert_run(hub)
    return hub


@pytest.mark.parametrize("path", QUERIES)
def test_no_odd_value_in_an_address_breaks_a_page(filled: Hub, path: str) -> None:
    for name in QUERIES[path].split():
        for odd in ODD:
            url = f"{path}{'&' if '?' in path else '?'}{quote(name)}={quote(odd)}"
            answer = filled.client.get(url)
            assert answer.status_code in (200, 303, 400, 404), (name, odd[:40], answer.status_code)


@pytest.mark.parametrize("path", FIELDS)
def test_no_odd_value_in_a_form_breaks_a_page(filled: Hub, path: str) -> None:
    good = TYPED if FIELDS[path].endswith(DEFINITION) else {}
    # Saving checks with the handler, in a process of its own each time: two values there, all in the preview.
    odds = ("1" * 400, "x") if path == "/admin/jobs/create" else ODD
    for name in FIELDS[path].split():
        for odd in odds:
            answer = filled.client.post(path, data={**good, name: odd}, headers=OWN)
            assert answer.status_code in (200, 303, 400, 404, 409, 429), (name, odd[:40], answer.status_code)
