"""The form of a Job over HTTP: what it stores, what it refuses, and what it never shows."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from urllib.parse import unquote, urljoin, urlsplit

from tests.web_hub import CANARY, GOOD, Hub, errors_of, insert_job

pytest_plugins = ["tests.web_hub"]


def test_a_job_is_made_shown_changed_and_deleted(hub: Hub) -> None:
    answer = hub.post("/admin/jobs/create", **GOOD)
    assert answer.status_code == 303, errors_of(answer.text)
    assert answer.headers["location"] == "/admin/jobs/details/sync-1"
    [job] = hub.sql("SELECT j.*, r.saved_by FROM jobs j JOIN job_revisions r ON r.id = j.revision_id")
    assert (job["tags"], job["enabled"], job["saved_by"]) == (["oa", "travel"], True, "admin")
    assert json.loads(job["public_cfg"]) == {"base_url": "http://oa"}
    assert hub.vault.decrypt(job["secret_cfg"]) == {"token": CANARY}

    for search in ("sync", "SYNC-1", "travel", "plainjob"):
        assert "sync-1" in hub.page(f"/admin/jobs/list?q={search}&state=all")
    assert "No Job matches." in hub.page("/admin/jobs/list?state=disabled")
    assert "No Job matches." in hub.page("/admin/jobs/list?q=%25")

    changes = {**GOOD, "name": "Renamed", "secret_cfg": "", "id": "other"}
    del changes["enabled"]
    assert hub.post("/admin/jobs/edit/sync-1", **changes).status_code == 303
    [job] = hub.sql("SELECT * FROM jobs")
    assert (job["id"], job["name"], job["enabled"]) == ("sync-1", "Renamed", False)
    assert hub.vault.decrypt(job["secret_cfg"]) == {"token": CANARY}
    assert hub.post("/admin/jobs/edit/sync-1", secret_cfg="{}", public_cfg="{}").status_code == 303
    assert hub.sql("SELECT secret_cfg FROM jobs")[0]["secret_cfg"] is None

    assert hub.post("/admin/jobs/delete/sync-1", typed="sync-1").status_code == 303
    assert not hub.sql("SELECT FROM jobs")
    audit = hub.sql("SELECT action, object, username, address, detail FROM audit ORDER BY id OFFSET 1")
    assert [row["action"] for row in audit] == ["job.create", "job.update", "job.update", "job.delete"]
    assert {(row["object"], row["username"]) for row in audit} == {("sync-1", "admin")}
    assert CANARY not in str(audit) and json.loads(audit[0]["detail"])["secret_keys"] == ["token"]


def test_each_wrong_field_is_told_beside_it_and_the_input_stays(hub: Hub) -> None:
    insert_job(hub, "taken")
    wrong = {
        "id": "-x", "cron_expr": "0 25 * * *", "timezone": "Mars/Base", "handler_path": "os:getcwd",
        "public_cfg": "[1]", "secret_cfg": f'"{CANARY}"', "misfire": "never", "misfire_window_s": "-1",
        "overlap": "x", "timeout_s": "soon", "max_attempts": "1", "retry_delays": "1, x", "rerun_lost": "on",
        "priority": "1.5", "name": "n" * 201,
    }  # fmt: skip
    answer = hub.post("/admin/jobs/create", **{**GOOD, **wrong})
    errors = errors_of(answer.text)
    assert answer.status_code == 400 and not hub.sql("SELECT FROM jobs WHERE id <> 'taken'")
    # Too few attempts are no error of their own.
    assert set(wrong) - set(errors) == {"max_attempts"}
    assert "25" in errors["cron_expr"] and "Mars/Base" in errors["timezone"]
    assert errors["public_cfg"] == "public_cfg must be a JSON object"
    assert errors["secret_cfg"] == "secret_cfg must be a JSON object"
    assert "webjobs" in errors["handler_path"]
    page = unescape(answer.text)
    for name in set(wrong) - {"secret_cfg", "misfire", "overlap", "rerun_lost", "public_cfg"}:
        assert f'value="{wrong[name]}"' in page, name
    assert ">\n[1]</textarea>" in page and CANARY not in answer.text


WRONG = [
    ("id", "", "required"),
    ("id", "a/b", "letter or digit"),
    ("id", "taken", "already"),
    ("id", "run", "another id"),
    ("cron_expr", "0 0 31 2 *", "never"),
    ("cron_expr", "", "5 fields"),
    ("timezone", "Mars/Base", "Mars/Base"),
    ("handler_path", "", "required"),
    ("handler_path", "webjobs.jobs:Missing", "Missing"),
    ("handler_path", "webjobs.nowhere:Job", "nowhere"),
    ("public_cfg", " ", "public_cfg must be a JSON object"),
    ("public_cfg", "{", "public_cfg must be a JSON object"),
    ("public_cfg", '{"a": NaN}', "public_cfg must be a JSON object"),
    ("public_cfg", '{"a": "\\u0000"}', "cannot be stored"),
    ("public_cfg", '{"a": "\\ud800"}', "cannot be stored"),
    ("public_cfg", '{"a":' * 99_999, "public_cfg must be a JSON object"),
    ("secret_cfg", "", "secret_cfg must be a JSON object"),
    ("secret_cfg", "null", "secret_cfg must be a JSON object"),
    ("timeout_s", "99999999999", "whole number"),
]


def test_one_wrong_field(hub: Hub) -> None:
    insert_job(hub, "taken")
    for field, value, told in WRONG:
        answer = hub.post("/admin/jobs/create", **{**GOOD, field: value})
        errors = errors_of(answer.text)
        assert answer.status_code == 400 and told.lower() in errors[field].lower(), errors
        # Secrets that were typed well are gone all the same: the form says so.
        assert set(errors) <= {field, "secret_cfg"} and CANARY not in answer.text


def test_the_classes_of_a_handler_check_its_fields(hub: Hub) -> None:
    typed = {**GOOD, "handler_path": "webjobs.jobs:TypedJob"}
    answer = hub.post("/admin/jobs/create", **{**typed, "public_cfg": "{}", "secret_cfg": '{"token": 5}'})
    errors = errors_of(answer.text)
    assert errors["p.base_url"] == "Required." and "public_cfg" not in errors, "beside its field, and once"
    assert errors["s.token"] and CANARY not in answer.text
    assert hub.post("/admin/jobs/create", **typed).status_code == 303
    # What was stored is checked as well when it is kept.
    assert hub.post("/admin/jobs/edit/sync-1", **{**typed, "secret_cfg": ""}).status_code == 303


ODD_IDS = [
    ".", "..", "a\nb", "\n", "a\n", "a\r\nb", "~2e", "~7e3265", "~2E", "~x", "~", "a/../b", "run", "a/run",
    "x?y#z", "名/\\ &amp;", "-" * 300, "<b>",
]  # fmt: skip


def links_to(page: str, start: str) -> list[str]:
    """Where a page leads to below `start`; no part of a path may be what browsers take for a step."""
    hrefs = re.findall(r'(?:href|action|data-confirm)="([^"]*)', page)
    found = [urljoin("http://x/admin/", unescape(href)).removeprefix("http://x") for href in hrefs]
    for path in found:
        assert not {".", ".."} & set(map(unquote, urlsplit(path).path.split("/"))), path
    return [path for path in found if path.startswith(start)]


def test_a_job_may_be_called_anything_and_is_reached_by_the_links_of_the_list(hub: Hub) -> None:
    for job_id in ODD_IDS:  # by SQL: the form refuses such ids
        insert_job(hub, job_id)
    for job_id in ODD_IDS:
        listed = hub.client.get("/admin/jobs/list", params={"q": job_id}).text
        rows = [row for row in listed.split("<tr data-key=")[1:] if unescape(row.split('"')[1]) == job_id]
        assert len(rows) == 1, job_id
        [run_path] = {path for path in links_to(rows[0], "/admin/jobs/") if path.endswith("/run")}
        [page_path] = {path for path in links_to(rows[0], "/admin/jobs/details/") if "?" not in path}
        [edit_path] = set(links_to(rows[0], "/admin/jobs/edit/"))
        assert f'data-copy="{escape(job_id)}"' in hub.client.get(page_path).text, job_id
        assert hub.client.get(f"{page_path}?tab=revisions").status_code == 200, job_id
        assert hub.post(edit_path, **{**GOOD, "priority": "7"}).status_code == 303, job_id
        assert hub.post(run_path).status_code == 303
        hub.sql("UPDATE job_logs SET status = 'SUCCESS', finished_at = now()")
        for action in ("disable", "clear", "delete"):
            confirmations = links_to(rows[0], "/admin/jobs-bulk/confirm")
            page = hub.client.get(next(path for path in confirmations if f"={action}" in path)).text
            assert "No Job is selected" not in page, (job_id, action)
            fields = re.findall(r'name="(ids|back)" value="([^"]*)"', page)
            form = {name: unescape(value) for name, value in fields}
            typed = " ".join(job_id.split()) if action == "delete" else ""
            answer = hub.post(f"/admin/jobs-bulk/{action}", **form, typed=typed)
            assert answer.status_code == 303 and "n=1" in answer.headers["location"], (job_id, action)
        assert not hub.sql("SELECT FROM jobs WHERE id = $1", job_id), job_id
        runs = hub.sql("SELECT object FROM audit WHERE action = 'job.run' ORDER BY id DESC LIMIT 1")
        assert runs[0]["object"] == job_id
    assert not hub.sql("SELECT FROM jobs")


def test_a_job_may_be_called_like_an_address_and_yet_only_it_is_run(hub: Hub) -> None:
    for job_id in ("delete", "edit", "run", "sync-1"):  # by SQL: the form refuses such ids
        insert_job(hub, job_id)
    for job_id in ("delete", "edit", "run"):
        assert hub.post(f"/admin/jobs/{job_id}/run").status_code == 303
    assert [row["id"] for row in hub.sql("SELECT id FROM jobs ORDER BY id")] == [
        "delete",
        "edit",
        "run",
        "sync-1",
    ]
    runs = hub.sql("SELECT job_id FROM job_logs ORDER BY id")
    assert [row["job_id"] for row in runs] == ["delete", "edit", "run"]
