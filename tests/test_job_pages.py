"""The pages of Jobs over HTTP: what a person sees, changes, and is told before and after."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest

from connecthub.config import Settings
from tests.web_hub import CANARY, GOOD, OWN, Hub, add_user, errors_of, insert_job, insert_run

pytest_plugins = ["tests.web_hub"]

FORM = '''
from typing import Literal

from pydantic import BaseModel, Field

from connecthub.plugins import BaseJob


class FormJob(BaseJob):
    """Copies <b>people</b>.

    Second paragraph.
    """

    class Params(BaseModel):
        base_url: str = Field(description="Where <it> is")
        hours: int = Field(24, ge=1, le=168)
        kind: Literal["full", "delta"] = "full"
        names: list[str] = []
        dry_run: bool = False

    class Secrets(BaseModel):
        user: str
        token: str

    def run(self, params, secrets):
        return {}
'''
HANDLER = "webjobs.forms:FormJob"


@pytest.fixture
def formed(hub: Hub, settings: Settings) -> Hub:
    """A hub whose package has a handler with models."""
    (Path(settings.plugin_path) / "webjobs" / "forms.py").write_text(FORM)
    return hub


def make(hub: Hub, **changes: str) -> None:
    secret = json.dumps({"user": "li", "token": CANARY})
    form = {**GOOD, "handler_path": HANDLER, "secret_cfg": secret, **changes}
    answer = hub.post("/admin/jobs/create", **form)
    assert answer.status_code == 303, errors_of(answer.text)


def shown_form(hub: Hub, path: str) -> dict[str, str]:
    """What a browser would send of the form without a change."""
    return form_in(hub.client.get(path).text)


def form_in(page: str) -> dict[str, str]:
    """The same of the form on `page`."""
    fields: dict[str, str] = {}
    for tag in re.findall(r"<input\b[^>]*>", page):
        parts = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if "name" in parts and "disabled" not in tag and parts["name"] not in ("q", "next", "language"):
            if parts.get("type") != "checkbox" or " checked" in tag:
                fields[parts["name"]] = unescape(parts.get("value", ""))
    for name, text in re.findall(r'<textarea\b[^>]*\bname="([^"]+)"[^>]*>\n?(.*?)</textarea>', page, re.S):
        fields[name] = unescape(text)
    for name, options in re.findall(r'<select\b[^>]*\bname="([^"]+)"[^>]*>(.*?)</select>', page, re.S):
        chosen = re.search(r'value="([^"]*)" selected', options)
        fields[name] = unescape(chosen[1]) if chosen else ""
    return fields


def job_row(hub: Hub) -> dict[str, object]:
    return dict(hub.sql("SELECT * FROM jobs WHERE id = 'sync-1'")[0])


def test_the_list_finds_filters_and_sorts(hub: Hub) -> None:
    for job_id in ("ok-1", "bad-1", "off-1"):
        insert_job(hub, job_id)
    hub.sql("UPDATE jobs SET tags = '{hr}', name = 'People' WHERE id = 'ok-1'")
    hub.sql("UPDATE jobs SET enabled = false WHERE id = 'off-1'")
    insert_run(hub, "SUCCESS", "ok-1")
    insert_run(hub, "FAILURE", "bad-1")
    insert_run(hub, "SKIPPED", "bad-1")
    insert_run(hub, "FAILURE", "off-1")

    def listed(query: str) -> list[str]:
        return re.findall(r'data-key="([^"]*)"', hub.page(f"/admin/jobs/list{query}"))

    assert listed("")[0] == "bad-1", "what fails comes first"
    assert listed("?state=failing") == ["bad-1"] and listed("?state=disabled") == ["off-1"]
    assert listed("?tag=hr") == ["ok-1"] and listed("?q=PEOPLE") == ["ok-1"] and listed("?q=o_") == []
    assert listed("?sort=name") == ["bad-1", "off-1", "ok-1"]
    assert listed("?sort=-name") == ["ok-1", "off-1", "bad-1"]
    assert len(listed("?state=nonsense&sort=nonsense")) == 3
    page = hub.page("/admin/jobs/list")
    assert "(1) ✖" in page and "Failing 1" in page and 'class="hub-mark-failure"' in page


def test_an_empty_list_says_what_to_do_first(hub: Hub) -> None:
    page = hub.page("/admin/jobs/list")
    assert "2 handlers found" in page and "/admin/jobs/create?handler=webjobs.jobs%3APlainJob" in page
    assert "No Job matches." in hub.page("/admin/jobs/list?q=nothing")


def test_switching_clearing_and_deleting_many(hub: Hub) -> None:
    for job_id in ("a-1", "b-1"):
        insert_job(hub, job_id)
        insert_run(hub, "SUCCESS", job_id)
    going = insert_run(hub, "QUEUED", "b-1")
    many = "id=a-1&id=b-1"
    assert "1 ended" not in hub.page(f"/admin/jobs-bulk/confirm?action=disable&{many}")
    page = hub.page(f"/admin/jobs-bulk/confirm?action=clear&{many}")
    assert "Deletes 2 ended records" in page and "Delete 2 records" in page

    ids = "a-1\nb-1"
    answer = hub.post("/admin/jobs-bulk/disable", ids=ids, back="/admin/jobs/list?q=x")
    start = "/admin/jobs/list?q=x&said=disabled"
    assert answer.headers["location"].startswith(f"{start}&n=2&undo=")
    assert not hub.sql("SELECT FROM jobs WHERE enabled")
    page = hub.page(answer.headers["location"])
    assert "Disabled 2 Jobs." in page and 'action="/admin/jobs-bulk/enable"' in page and ">Undo<" in page
    hub.post("/admin/jobs-bulk/enable", ids="a-1")
    answer = hub.post("/admin/jobs-bulk/disable", ids=ids, back="/admin/jobs/list?q=x&said=enabled&n=1")
    [entry] = hub.sql("SELECT max(id) AS id FROM audit WHERE action = 'job.disable'")
    undo = f"{entry['id']}-{entry['id']}"
    assert answer.headers["location"] == f"{start}&n=1&undo={undo}", "what was not changed is not undone"
    assert "Disabled 1 Job." in hub.page(answer.headers["location"])
    assert (
        hub.post("/admin/jobs-bulk/enable", ids=ids, back="//evil")
        .headers["location"]
        .startswith("/admin/jobs/list?said=enabled&n=2")
    )
    assert hub.post("/admin/jobs-bulk/clear", ids=ids).headers["location"].endswith("said=cleared&n=2")
    assert [row["id"] for row in hub.sql("SELECT id FROM job_logs")] == [going], "what is going stays"

    page = hub.page(f"/admin/jobs-bulk/confirm?action=delete&{many}")
    assert f"/admin/joblogs/details/{going}" in page and "Disable instead" in page
    assert hub.post("/admin/jobs-bulk/delete", ids=ids, typed="2").status_code == 409
    hub.post(f"/admin/joblogs/{going}/cancel")
    assert hub.post("/admin/jobs-bulk/delete", ids=ids, typed="3").status_code == 400
    assert hub.post("/admin/jobs/delete/a-1").status_code == 400, "the id must be typed"
    assert len(hub.sql("SELECT FROM jobs")) == 2
    assert hub.post("/admin/jobs-bulk/delete", ids=ids, typed="2").status_code == 303
    assert not hub.sql("SELECT FROM jobs")
    actions = [row["action"] for row in hub.sql("SELECT action FROM audit ORDER BY id OFFSET 1")]
    assert actions == [
        *["job.disable"] * 2, "job.enable", "job.disable", *["job.enable"] * 2, *["job.clear"] * 2,
        "run.cancel", *["job.delete"] * 2,
    ]  # fmt: skip


def test_an_action_on_any_number_of_jobs_can_be_undone(hub: Hub) -> None:
    for number in range(40):
        insert_job(hub, f"{'long-id-' * 20}{number}")
    hub.sql("UPDATE jobs SET enabled = false WHERE id LIKE '%39'")
    insert_job(hub, "other")
    hub.post("/admin/jobs-bulk/disable", ids="other")
    page = hub.page("/admin/jobs-bulk/confirm?action=disable&all=1&q=long-id")
    ids = re.search(r'name="ids" value="([^"]*)"', page)
    assert ids
    answer = hub.post("/admin/jobs-bulk/disable", ids=ids[1])
    page = hub.page(answer.headers["location"])
    undo = re.search(r'bulk/enable"[^>]*>\s*<input type="hidden" name="undo" value="([^"]+)"', page)
    assert undo and "39 Jobs" in page and len(answer.headers["location"]) < 200
    add_user(hub, "wang", "operator")
    hub.log_in("wang")
    answer = hub.post("/admin/jobs-bulk/enable", undo=undo[1])
    assert "n=0" in answer.headers["location"], "nobody undoes what somebody else did"
    hub.log_in()
    answer = hub.post("/admin/jobs-bulk/enable", undo=undo[1])
    assert "n=39" in answer.headers["location"]
    still = hub.sql("SELECT id FROM jobs WHERE NOT enabled ORDER BY id")
    assert [row["id"][-2:] for row in still] == ["39", "er"], "what was so before, and what another click did"
    for odd in ("x", "1", "1-", "9" * 30 + "-1", "2-1", "-1-2"):
        assert "n=0" in hub.post("/admin/jobs-bulk/enable", undo=odd).headers["location"], odd


def test_running_many_and_all_that_match(hub: Hub) -> None:
    for job_id in ("a-1", "b-1", "other"):
        insert_job(hub, job_id)
    page = hub.page("/admin/jobs-bulk/confirm?action=run&all=1&q=-1")
    assert "Run 2 Jobs now?" in page
    assert hub.post("/admin/jobs-bulk/run", ids="a-1\nb-1\ngone").status_code == 303
    rows = hub.sql("SELECT job_id FROM job_logs ORDER BY id")
    assert [row["job_id"] for row in rows] == ["a-1", "b-1"]
    hub.page("/admin/jobs-bulk/confirm?action=explode&id=a-1", 400)
    hub.page("/admin/jobs-bulk/confirm?action=clear&id=nowhere", 404)
    assert "No Job was selected." in hub.page("/admin/jobs-bulk/confirm?action=clear")


def test_a_job_that_is_deleted_meanwhile_is_told_as_gone(hub: Hub) -> None:
    for job_id in ("a-1", "b-1"):
        insert_job(hub, job_id)
    hub.answer_faults()
    # As if somebody had deleted b-1 after the page had looked for it.
    hub.sql("CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$")
    hub.sql(
        "CREATE TRIGGER gone BEFORE INSERT ON job_logs FOR EACH ROW WHEN (NEW.job_id <> 'a-1')"
        " EXECUTE FUNCTION gone()"
    )
    answer = hub.post("/admin/jobs-bulk/run", ids="a-1\nb-1")
    assert answer.headers["location"].endswith("said=started&n=1")
    assert hub.post("/admin/jobs/b-1/run").status_code == 404
    answer = hub.post("/admin/jobs/create", **GOOD, then="run")
    assert answer.status_code == 404 and "deleted" in answer.text


def test_the_form_draws_the_fields_of_the_models(formed: Hub) -> None:
    raw = formed.client.get(f"/admin/jobs/create?handler={HANDLER}").text
    assert "Copies &lt;b&gt;people&lt;/b&gt;." in raw and "<b>people" not in raw
    assert "Where &lt;it&gt; is" in raw and "1 … 168" in raw and "Default: 24" in raw
    for name in ("p.base_url", "p.hours", "p.kind", "p.names", "p.dry_run", "s.user", "s.token"):
        assert f'name="{name}"' in raw, name
    # Fields alone, without a word of JSON.
    form = shown_form(formed, f"/admin/jobs/create?handler={HANDLER}")
    form |= {
        "id": "sync-1", "cron_expr": "0 * * * *", "p.base_url": "http://oa", "p.hours": "48",
        "p.kind": '"delta"', "p.names": "a\nb\n", "p.dry_run": "true", "s.user": "li", "s.token": CANARY,
    }  # fmt: skip
    answer = formed.post("/admin/jobs/create", **form)
    assert answer.status_code == 303, errors_of(answer.text)
    job = job_row(formed)
    assert json.loads(str(job["public_cfg"])) == {
        "base_url": "http://oa", "hours": 48, "kind": "delta", "names": ["a", "b"], "dry_run": True,
    }  # fmt: skip
    assert formed.vault.decrypt(str(job["secret_cfg"])) == {"user": "li", "token": CANARY}
    assert '<option value="&#34;delta&#34;" selected>' in formed.client.get("/admin/jobs/edit/sync-1").text


def test_a_wrong_field_is_told_beside_it_in_the_readers_language(formed: Hub) -> None:
    form = shown_form(formed, f"/admin/jobs/create?handler={HANDLER}")
    form |= {"id": "sync-1", "cron_expr": "0 * * * *", "p.hours": "abc", "s.user": "li", "s.token": CANARY}
    answer = formed.post("/admin/jobs/create", **form)
    page = unescape(answer.text)
    assert answer.status_code == 400 and CANARY not in page
    assert 'id="p.hours-error">Must be a whole number from 1 to 168, got “abc”.' in page
    assert 'id="p.base_url-error">Required.' in page and 'value="abc"' in page
    assert 'id="s.token-error">What was typed here is not kept' in page
    answer = formed.post("/admin/jobs/create", headers={**OWN, "Accept-Language": "zh-CN"}, **form)
    assert "必须是 1 到 168 的整数，当前为「abc」。" in answer.text and "必填。" in answer.text
    form["public_cfg"] = '{"base_url": "http://oa"\n"hours": 1}'
    answer = formed.post("/admin/jobs/create", headers={**OWN, "Accept-Language": "zh-CN"}, **form)
    assert "（第 2 行第 1 列：缺少逗号，或括号未闭合）" in answer.text and "Expecting" not in answer.text


def test_a_machine_that_can_start_no_process_is_told_beside_the_handler_and_nothing_typed_is_lost(
    formed: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object, **__: object) -> object:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    form = shown_form(formed, f"/admin/jobs/create?handler={HANDLER}")
    form |= {"id": "sync-1", "name": "Typed", "cron_expr": "7 * * * *", "p.base_url": "http://typed"}
    form |= {"s.user": "li", "s.token": CANARY}
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "create_subprocess_exec", none)
        answer = formed.post("/admin/jobs/create", **form)
    assert answer.status_code == 400, answer.text
    told = errors_of(answer.text)
    assert "no process could be started" in told["handler_path"] and "try again" in told["handler_path"]
    assert all(f'value="{typed}"' in answer.text for typed in ("Typed", "7 * * * *", "http://typed"))
    assert formed.post("/admin/jobs/create", **form).status_code == 303


def test_one_secret_is_replaced_without_knowing_the_others(formed: Hub) -> None:
    make(formed)
    form = shown_form(formed, "/admin/jobs/edit/sync-1")
    assert form["s.token"] == "" and CANARY not in str(form)
    assert formed.post("/admin/jobs/edit/sync-1", **{**form, "s.user": "wang"}).status_code == 303
    assert formed.vault.decrypt(str(job_row(formed)["secret_cfg"])) == {"user": "wang", "token": CANARY}
    form = shown_form(formed, "/admin/jobs/edit/sync-1")
    changes = {"r.user": "1", "nk.1": "extra", "nv.1": "x" * 8}
    refused = formed.post("/admin/jobs/edit/sync-1", **{**form, **changes})
    assert 'id="s.user-error">Required.' in refused.text, "the model needs it"
    form["nk.1"], form["nv.1"] = "extra", "sesame-77"
    assert formed.post("/admin/jobs/edit/sync-1", **form).status_code == 303
    assert formed.vault.decrypt(str(job_row(formed)["secret_cfg"]))["extra"] == "sesame-77"
    page = formed.page("/admin/jobs/details/sync-1?tab=revisions")
    assert "replaced" in page and "added" in page and "sesame" not in page and CANARY not in page
    audit = str(formed.sql("SELECT detail FROM audit"))
    assert "sesame" not in audit and CANARY not in audit and "extra" in audit


def test_what_was_asked_of_secrets_outlives_an_error_elsewhere(formed: Hub) -> None:
    make(formed, handler_path="webjobs.jobs:PlainJob")
    asked = {
        "r.token": "1", "s.user": f"{CANARY}-1", "nk.1": "new <key>", "nv.1": f"{CANARY}-2", "nk.2": "bare",
    }  # fmt: skip
    form = {**shown_form(formed, "/admin/jobs/edit/sync-1"), **asked}
    again = "What was typed here is not kept: type it again."
    for wrong, status, told in (
        ({"cron_expr": "0 25 * * *"}, 400, {"s.bare": "“bare” has no value"}),
        ({"do": "fields"}, 200, {}),
        ({"revision": "1000000"}, 409, {}),
    ):
        answer = formed.post("/admin/jobs/edit/sync-1", **{**form, **wrong})
        page = unescape(answer.text)
        assert answer.status_code == status and CANARY not in page, wrong
        assert 'name="r.token" value="1" checked>' in page and 'name="r.user" value="1" >' in page, wrong
        names = re.findall(r'name="nk\.(\d)"[^>]* value="([^"]*)"', page)
        assert names == [("1", "new <key>"), ("2", "bare"), ("3", "")], wrong
        errors = dict(re.findall(r'id="(s\.[^"]+)-error">([^<]*)<', page))
        assert errors.keys() == {"s.user", "s.new <key>", *told}, wrong
        assert errors["s.user"] == errors["s.new <key>"] == again
        assert all(text in errors[name] for name, text in told.items())
    assert len(formed.sql("SELECT FROM job_revisions")) == 1
    block = formed.post("/admin/jobs/preview", of="sync-1", **{"r.token": "1"}).json()["blocks"]["secrets"]
    assert 'name="r.token" value="1" checked>' in block and 'name="r.user" value="1" >' in block


def test_that_all_secrets_go_outlives_an_error_elsewhere(formed: Hub) -> None:
    make(formed, handler_path="webjobs.jobs:PlainJob")
    form = {**shown_form(formed, "/admin/jobs/edit/sync-1"), "secret_cfg": "{}"}
    answer = formed.post("/admin/jobs/edit/sync-1", **{**form, "cron_expr": "0 25 * * *"})
    assert re.search(
        r'<details open><summary>As JSON</summary>.*name="secret_cfg".*\{\}</textarea>', answer.text, re.S
    )


def test_a_secret_without_its_value_or_name_is_told(formed: Hub) -> None:
    make(formed)
    form = shown_form(formed, "/admin/jobs/edit/sync-1")
    for key, value, told in ((" extra ", "", "“extra” has no value"), ("", "typed-77", "without the name")):
        typed = {"nk.1": key, "nv.1": value}
        for path, fields in (("edit/sync-1", form), ("create", {**GOOD, "id": "new"})):
            answer = formed.post(f"/admin/jobs/{path}", **{**fields, **typed})
            beside = "s.extra" if key else "secret_cfg"
            assert answer.status_code == 400 and told in errors_of(answer.text)[beside], (path, key)
            assert "typed-77" not in answer.text
    assert len(formed.sql("SELECT FROM job_revisions")) == 1


def test_saving_without_a_change_writes_no_revision(formed: Hub) -> None:
    make(formed)
    form = shown_form(formed, "/admin/jobs/edit/sync-1")
    form["s.user"] = "li"  # the same value again
    answer = formed.post("/admin/jobs/edit/sync-1", **form)
    assert answer.headers["location"].endswith("?said=unchanged")
    assert len(formed.sql("SELECT FROM job_revisions")) == 1
    assert "Nothing was changed" in formed.page(answer.headers["location"])


def test_the_second_editor_is_told_and_overwrites_nothing_unseen(formed: Hub) -> None:
    make(formed)
    mine = shown_form(formed, "/admin/jobs/edit/sync-1")
    theirs = {**mine, "timeout_s": "77", "name": "Theirs"}
    assert formed.post("/admin/jobs/edit/sync-1", **theirs).status_code == 303
    answer = formed.post("/admin/jobs/edit/sync-1", **{**mine, "name": "Mine", "priority": "3"})
    page = unescape(answer.text)
    assert answer.status_code == 409 and "admin has saved revision 2 meanwhile." in page
    assert "<ins>77</ins>" in page and "<ins>Theirs</ins>" in page
    assert 'value="Mine"' in page and 'value="77"' in page, "typed text stays, the rest is new"
    assert job_row(formed)["name"] == "Theirs"
    again = {**mine, "name": "Mine", "priority": "3", "timeout_s": "77"}
    again["revision"] = str(job_row(formed)["revision_id"])
    assert formed.post("/admin/jobs/edit/sync-1", **again).status_code == 303
    job = job_row(formed)
    assert (job["name"], job["timeout_s"], job["priority"]) == ("Mine", 77, 3)


def test_two_who_change_other_parameters_both_have_theirs(formed: Hub) -> None:
    make(formed)
    mine = shown_form(formed, "/admin/jobs/edit/sync-1")
    theirs = json.dumps({"base_url": "http://new", "hours": 24, "theirs": 1})
    assert formed.post("/admin/jobs/edit/sync-1", **{**mine, "public_cfg": theirs}).status_code == 303
    answer = formed.post("/admin/jobs/edit/sync-1", **{**mine, "p.hours": "48"})
    assert answer.status_code == 409
    again = form_in(answer.text)
    assert (again["p.base_url"], again["p.hours"]) == ("http://new", "48")
    assert formed.post("/admin/jobs/edit/sync-1", **again).status_code == 303
    assert json.loads(str(job_row(formed)["public_cfg"])) == {
        "base_url": "http://new",
        "hours": 48,
        "theirs": 1,
    }
    broken = formed.post("/admin/jobs/edit/sync-1", **{**mine, "public_cfg": "{no JSON"})
    assert broken.status_code == 409 and form_in(broken.text)["public_cfg"] == "{no JSON"


def test_a_run_asked_for_where_the_job_was_shown_as_it_was_takes_what_it_is_now(formed: Hub) -> None:
    make(formed)
    shown = shown_form(formed, "/admin/jobs/sync-1/run")
    edited = shown_form(formed, "/admin/jobs/edit/sync-1") | {"p.base_url": "http://new"}
    assert formed.post("/admin/jobs/edit/sync-1", **edited).status_code == 303
    for typed, params in (({}, None), ({"p.hours": "2"}, {"hours": 2})):
        wrong = formed.post("/admin/jobs/sync-1/run", **{**shown, **typed, "p.hours": "abc"})
        assert wrong.status_code == 400 and form_in(wrong.text)["params_base"] == shown["params_base"]
        answer = formed.post("/admin/jobs/sync-1/run", **{**shown, **typed, "token": str(uuid4())})
        run_id = int(answer.headers["location"].rsplit("/", 1)[1])
        [row] = formed.sql("SELECT params FROM job_logs WHERE id = $1", run_id)
        assert (row["params"] and json.loads(row["params"])) == params


def test_save_and_run_once(hub: Hub) -> None:
    answer = hub.post("/admin/jobs/create", **{**GOOD, "then": "run"})
    [row] = hub.sql("SELECT id FROM job_logs WHERE job_id = 'sync-1' AND trigger = 'manual'")
    assert answer.headers["location"] == f"/admin/joblogs/details/{row['id']}"


def test_a_revision_is_restored_after_its_difference_was_shown(formed: Hub) -> None:
    make(formed)
    form = shown_form(formed, "/admin/jobs/edit/sync-1")
    changed = {**form, "timeout_s": "60", "s.token": "another-secret"}
    assert formed.post("/admin/jobs/edit/sync-1", **changed).status_code == 303
    page = formed.page("/admin/jobs/restore/1/sync-1")
    assert "Saves revision 1 again as revision 3; 2 fields change" in page
    assert "another-secret" not in page and CANARY not in page
    seen = str(job_row(formed)["revision_id"])
    assert formed.post("/admin/jobs/restore/1/sync-1", revision="1").status_code == 409
    assert formed.post("/admin/jobs/restore/1/sync-1", revision=seen).status_code == 303
    job = job_row(formed)
    assert job["timeout_s"] is None and formed.vault.decrypt(str(job["secret_cfg"]))["token"] == CANARY
    numbers = [row["number"] for row in formed.sql("SELECT number FROM job_revisions ORDER BY number")]
    assert numbers == [1, 2, 3]
    formed.page("/admin/jobs/restore/9/sync-1", 404)
    formed.page("/admin/jobs/restore/99999999999999999999/sync-1", 404)
    formed.page("/admin/jobs/restore/1/none", 404)


def test_one_run_with_other_parameters(formed: Hub) -> None:
    make(formed)
    insert_run(formed, "QUEUED")
    page = formed.page("/admin/jobs/sync-1/run")
    assert "Run “Sync” now?" in page and "Try it (dry run)" in page
    form = shown_form(formed, "/admin/jobs/sync-1/run")
    answer = formed.post("/admin/jobs/sync-1/run", **{**form, "p.hours": "2"})
    run_id = int(answer.headers["location"].rsplit("/", 1)[1])
    [row] = formed.sql("SELECT params FROM job_logs WHERE id = $1", run_id)
    assert json.loads(row["params"]) == {"hours": 2}
    refused = formed.post("/admin/jobs/sync-1/run", **{**form, "p.hours": "0"})
    assert refused.status_code == 400 and 'value="0"' in refused.text
    dry = formed.post("/admin/jobs/sync-1/run", **{**form, "try": "1"})
    [row] = formed.sql(
        "SELECT params FROM job_logs WHERE id = $1", int(dry.headers["location"].rsplit("/", 1)[1])
    )
    assert json.loads(row["params"]) == {"dry_run": True}
    plain = formed.post("/admin/jobs/sync-1/run")
    [row] = formed.sql(
        "SELECT params FROM job_logs WHERE id = $1", int(plain.headers["location"].rsplit("/", 1)[1])
    )
    assert row["params"] is None
    assert formed.post("/admin/jobs/sync-1/run", public_cfg="[1]").status_code == 400


def test_a_parameter_cannot_be_left_out_of_one_run_without_a_word(formed: Hub) -> None:
    make(formed, public_cfg='{"base_url": "http://oa", "names": ["li", "wang"]}')
    form = shown_form(formed, "/admin/jobs/sync-1/run")
    refused = formed.post("/admin/jobs/sync-1/run", **{**form, "p.names": ""})
    assert refused.status_code == 400 and "stored value" in errors_of(refused.text)["p.names"]
    assert formed.sql("SELECT count(*) FROM job_logs")[0]["count"] == 0
    emptied = '{"base_url": "http://oa", "names": []}'
    answer = formed.post("/admin/jobs/sync-1/run", **{**form, "public_cfg": emptied})
    assert answer.status_code == 303
    assert json.loads(formed.sql("SELECT params FROM job_logs")[0]["params"]) == {"names": []}


def test_a_form_that_is_only_looked_at_saves_nothing(formed: Hub) -> None:
    make(formed)
    typed = {**shown_form(formed, "/admin/jobs/edit/sync-1"), "name": "Typed"}
    answer = formed.client.request("HEAD", "/admin/jobs/edit/sync-1", data=typed)
    assert answer.status_code == 200 and job_row(formed)["name"] == "Sync"


def test_parameters_are_told_as_they_are(formed: Hub, settings: Settings) -> None:
    make(formed, public_cfg='{"base_url": "http://oa", "note": null}', handler_path="webjobs.jobs:PlainJob")
    page = formed.page("/admin/jobs/details/sync-1?tab=configuration")
    assert re.search(r"<code>note</code></dt><dd>null<", page)
    package = Path(settings.plugin_path) / "webjobs"
    (package / "wide.py").write_text(FORM.replace("le=168", "le=2147483647"))
    assert "1 … 2147483647" in formed.page("/admin/jobs/create?handler=webjobs.wide:FormJob")


def test_the_preview_changes_nothing_and_keeps_no_secret(formed: Hub) -> None:
    make(formed)
    form = {**shown_form(formed, "/admin/jobs/edit/sync-1"), "of": "sync-1", "cron_expr": "5 9-18 * * 1-5"}
    before = formed.sql("SELECT xmin, * FROM jobs")
    answer = formed.post("/admin/jobs/preview", **{**form, "p.hours": "9", "timeout_s": "5"}).json()
    assert "Monday to Friday" in answer["blocks"]["schedule"]
    assert answer["blocks"]["schedule"].count("<li>") == 5
    assert "<ins>9</ins>" in answer["blocks"]["difference"] and json.loads(answer["public_cfg"])["hours"] == 9
    assert (
        "25 is above 23"
        in formed.post("/admin/jobs/preview", **{**form, "cron_expr": "0 25 * * *"}).json()["blocks"][
            "schedule"
        ]
    )
    assert 'name="s.token"' in answer["blocks"]["secrets"]
    picked = formed.post("/admin/jobs/preview", secret_cfg="{}", handler_path=HANDLER).json()
    assert 'name="s.user"' in picked["blocks"]["secrets"], "a picked handler brings its secrets"
    assert formed.post("/admin/jobs/preview").status_code == 200
    assert formed.sql("SELECT xmin, * FROM jobs") == before and CANARY not in str(answer)


def test_hostile_text_is_shown_as_text(hub: Hub) -> None:
    evil = '"><script>alert(1)</script>'
    hub.sql(
        "INSERT INTO jobs (id, name, cron_expr, handler_path, tags) VALUES ($1, $1, 'x', $1, ARRAY[$1])", evil
    )
    insert_run(hub, "FAILURE", evil)
    hub.sql("UPDATE job_logs SET message = $1, reason = $1", evil)
    name = quote(evil, safe="")
    for path in (
        "jobs/list", f"jobs/details/{name}", f"jobs/details/{name}?tab=revisions",
        f"jobs/details/{name}?tab=why",
        f"jobs/details/{name}?tab=configuration", f"jobs/edit/{name}", f"jobs/{name}/run",
        f"jobs-bulk/confirm?action=delete&id={name}", f"jobs/restore/1/{name}",
    ):  # fmt: skip
        answer = hub.client.get(f"/admin/{path}")
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text, path


def why(hub: Hub, at: datetime, zone: str = "UTC") -> str:
    page = hub.page(f"/admin/jobs/details/sync-1?tab=why&at={at:%Y-%m-%dT%H:%M}&zone={zone}")
    found = re.search(r'class="hub-sentence">([^<]*)<', page)
    assert found, page
    return unescape(found[1])


def test_why_it_did_not_run(hub: Hub) -> None:
    insert_job(hub)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    day = now - timedelta(days=1)
    hub.sql("ALTER TABLE job_revisions DISABLE TRIGGER USER")
    hub.sql("UPDATE job_revisions SET saved_at = $1", day - timedelta(days=9))
    hub.sql("ALTER TABLE job_revisions ENABLE TRIGGER USER")
    run_id = insert_run(hub)
    hub.sql(
        "UPDATE job_logs SET trigger = 'schedule', scheduled_for = $1, started_at = $1 WHERE id = $2",
        day,
        run_id,
    )
    assert why(hub, day) == "It ran: see this run."
    assert why(hub, day, "Asia/Shanghai") != why(hub, day), "the moment is meant in the zone that was picked"
    assert why(hub, day + timedelta(minutes=5)).startswith("Not due: the next fire time is")
    assert why(hub, now + timedelta(days=2)).startswith("Not yet: it fires at")
    assert why(hub, day - timedelta(days=30)).startswith("The Job did not exist yet")
    assert why(hub, day + timedelta(hours=1)).startswith("It was due, and the records do not say")

    hub.sql("ALTER TABLE job_revisions DISABLE TRIGGER USER")
    hub.sql("UPDATE job_revisions SET number = 2, saved_at = $1", day - timedelta(days=100))
    hub.sql("ALTER TABLE job_revisions ENABLE TRIGGER USER")
    # The hubs of that time are kept no longer, and this one had not been there.
    hub.sql(
        "INSERT INTO hubs (worker_id, name, version, places, started_at)"
        " VALUES (gen_random_uuid(), 'h', '1', 4, $1)",
        day - timedelta(days=80),
    )
    long_ago = why(hub, day - timedelta(days=95))
    assert long_ago == why(hub, day - timedelta(days=120)) == "Records of that time are no longer kept."

    hub.sql(
        "UPDATE job_logs SET status = 'SKIPPED', reason = 'overlap', meta = $2 WHERE id = $1",
        run_id,
        '{"blocked_by": 41}',
    )
    assert why(hub, day) == "Skipped: the last run was still going."
    page = hub.page(f"/admin/jobs/details/sync-1?tab=why&at={day:%Y-%m-%dT%H:%M}&zone=UTC")
    assert "/admin/joblogs/details/41" in page
    told = re.sub(r"<[^>]+>", "", page)
    assert re.search(rf"\((\S+ )*{day:%H:%M} UTC\)", told), "the row is told in the zone of the sentence, too"


def test_why_names_the_stretch_in_which_no_hub_was_up(hub: Hub) -> None:
    insert_job(hub)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hub.sql("ALTER TABLE job_revisions DISABLE TRIGGER USER")
    hub.sql("UPDATE job_revisions SET saved_at = $1", now - timedelta(days=9))
    hub.sql("ALTER TABLE job_revisions ENABLE TRIGGER USER")
    end, begin = now - timedelta(hours=2), now - timedelta(hours=6)
    for started, seen in ((now - timedelta(days=3), begin), (end + timedelta(minutes=1), now)):
        hub.sql(
            "INSERT INTO hubs (worker_id, name, version, places, started_at, seen_at)"
            " VALUES (gen_random_uuid(), 'h', '1', 4, $1, $2)",
            started,
            seen,
        )
    missed = {"missed": {"from": (begin + timedelta(hours=1)).isoformat(), "to": end.isoformat(), "count": 4}}
    run_id = insert_run(hub, "SKIPPED")
    hub.sql(
        "UPDATE job_logs SET trigger = 'schedule', reason = 'missed', scheduled_for = $1, meta = $2"
        " WHERE id = $3",
        end,
        json.dumps(missed),
        run_id,
    )
    middle = begin + timedelta(hours=2)
    told = why(hub, middle)
    assert told.startswith("Not started: no hub was up from") and f"{begin:%Y-%m-%d %H:%M}" in told
    page = hub.page(f"/admin/jobs/details/sync-1?tab=why&at={middle:%Y-%m-%dT%H:%M}&zone=UTC")
    assert f"#{run_id}" in page, "with the row it rests on"


def test_why_names_who_disabled_and_who_paused(hub: Hub) -> None:
    insert_job(hub)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    hub.post("/admin/jobs-bulk/disable", ids="sync-1")
    soon = now + timedelta(minutes=2)
    assert why(hub, soon).startswith("Disabled by admin on ")
    for path in ("list", "details/sync-1"):
        assert re.search(r"</time> · admin\b", hub.page(f"/admin/jobs/{path}")), path
    hub.post("/admin/jobs-bulk/enable", ids="sync-1")
    hub.sql("ALTER TABLE job_revisions DISABLE TRIGGER USER")
    hub.sql("UPDATE job_revisions SET saved_at = saved_at - interval '1 day'")
    hub.sql("ALTER TABLE job_revisions ENABLE TRIGGER USER")
    hub.sql("UPDATE hub_state SET paused_at = now() - interval '5 hours', paused_by = 'li.na'")
    due = now.replace(minute=0) - timedelta(hours=1)
    assert why(hub, due).startswith("Paused by li.na since ")
    for query in ("at=x", "at=2026-13-01T00:00", "at=0001-01-01T00:00"):
        assert "Pick a date" in hub.page(f"/admin/jobs/details/sync-1?tab=why&{query}"), query
    page = hub.page("/admin/jobs/details/sync-1?tab=why&at=2026-01-01T00:00&zone=Mars/Base")
    assert "got “Mars/Base”" in errors_of(page)["zone"] and 'name="zone" value="Mars/Base"' in page
    assert 'id="answer"' not in page, "of which moment, nobody knows"


def test_the_job_page_shows_fires_and_marks_those_a_clock_change_moves(hub: Hub) -> None:
    insert_job(hub)
    hub.sql("UPDATE jobs SET cron_expr = '30 2 * 3 0', timezone = 'Europe/Berlin'")
    page = hub.page("/admin/jobs/details/sync-1")
    assert page.count("<li><span title=") == 10 and "02:30 does not exist that day" in page
    assert "Does nothing." in page
    for tab in ("configuration", "revisions", "nonsense"):
        hub.page(f"/admin/jobs/details/sync-1?tab={tab}")


def test_the_list_asked_by_itself_gives_rows_with_their_state(hub: Hub) -> None:
    insert_job(hub, "a-1")
    insert_job(hub, "b-1")
    insert_run(hub, "SUCCESS", "a-1")
    live = {"Hub-Live": "1"}

    def rows(text: str) -> dict[str, str]:
        return dict(re.findall(r'<tr data-key="([\w-]+)" data-v="(\w+)"', text))

    first = hub.client.get("/admin/jobs/list", headers=live)
    assert rows(first.text).keys() == {"a-1", "b-1"} and "<html" not in first.text
    again = hub.client.get("/admin/jobs/list", headers={**live, "If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    insert_run(hub, "FAILURE", "b-1")
    changed = rows(hub.client.get("/admin/jobs/list", headers=live).text)
    assert changed["a-1"] == rows(first.text)["a-1"] and changed["b-1"] != rows(first.text)["b-1"]
    page = hub.client.get("/admin/jobs/details/b-1", headers=live).text
    assert 'data-live="head"' in page and "1 failure" in page


def test_a_success_that_counts_failures_is_marked_wherever_it_is_listed(hub: Hub) -> None:
    insert_job(hub)
    run_id = insert_run(hub)
    pages = ("/admin/jobs/list", "/admin/jobs/details/sync-1", "/admin/joblogs/list")
    assert not any("some failed" in hub.page(path) for path in pages)
    hub.sql(
        "UPDATE job_logs SET message = '', result = '{\"total\": 7, \"failed\": 2}' WHERE id = $1", run_id
    )
    assert all("some failed" in hub.page(path) for path in pages)
    assert "total 7 · failed 2" in hub.page(pages[1]), "the figures stand in for a message"


def test_every_page_tells_in_its_title_how_many_jobs_fail(hub: Hub) -> None:
    insert_job(hub)
    insert_run(hub, "FAILURE")
    for path in ("/admin/", "/admin/jobs/list", "/admin/joblogs/list", "/admin/more", "/admin/audit"):
        page = hub.page(path)
        assert "<title>(1) ✖ " in page and "favicon-fail.svg" in page, path


def test_any_two_revisions_are_compared_without_a_secret(formed: Hub) -> None:
    make(formed)
    for hours in ("48", "96"):
        fields = shown_form(formed, "/admin/jobs/edit/sync-1")
        formed.post("/admin/jobs/edit/sync-1", **{**fields, "p.hours": hours, "s.token": f"{CANARY}-{hours}"})
    page = formed.page("/admin/jobs/details/sync-1?tab=revisions&of=3&of=1")
    compared = page[page.index('id="compared"') : page.index('id="compare"')]
    assert "Revision 1 → Revision 3" in compared and "<ins>96</ins>" in compared and "48" not in compared
    assert "replaced" in compared and "token" in compared and CANARY not in page
    same = formed.page("/admin/jobs/details/sync-1?tab=revisions&of=2&of=2")
    assert 'id="compared"' not in same
    for wrong in ("of=1&of=99", "of=x&of=1", "of=-1&of=1", f"of=1&of={'9' * 30}"):
        assert 'id="compared"' not in formed.page(f"/admin/jobs/details/sync-1?tab=revisions&{wrong}")


def test_every_saved_change_is_reached_page_by_page(hub: Hub) -> None:
    insert_job(hub)
    for priority in range(1, 125):
        hub.sql("UPDATE jobs SET priority = $1", priority)
    seen: list[int] = []
    query, page = "", ""
    for _ in range(4):
        page = hub.page(f"/admin/jobs/details/sync-1?tab=revisions{query}")
        shown = re.findall(r'name="of" value="(\d+)" +> <strong>', page)
        assert len(shown) <= 50
        seen += map(int, shown)
        older = re.search(r'name="before" value="(\d+)">older', page)
        if not older:
            break
        query = f"&before={older[1]}"
    assert seen == list(range(125, 0, -1)), "all of them, newest first, none twice"
    assert "The Job was made." in page and "/admin/jobs/restore/1/sync-1" in page
    # The oldest of a page tells what it changed although the one before it is on the next.
    page = hub.page("/admin/jobs/details/sync-1?tab=revisions")
    assert page.split("Revision 76<")[1].count("<del>74</del>") == 1
    # A tick goes along, and two of different pages are compared.
    page = hub.page("/admin/jobs/details/sync-1?tab=revisions&before=76&of=120")
    assert 'name="of" value="120" checked>' in page and "newest" in page
    page = hub.page("/admin/jobs/details/sync-1?tab=revisions&before=76&of=120&of=3")
    compared = page.split('id="compared"')[1].split("</section>")[0]
    assert "<del>2</del>" in compared and "<ins>119</ins>" in compared
    for odd, status in (("x", 400), ("-1", 400), ("0", 200), ("9" * 30, 200), ("1", 200)):
        hub.page(f"/admin/jobs/details/sync-1?tab=revisions&before={odd}&of={odd}&of=2", status)


def test_secrets_tell_when_and_by_whom_each_was_set(formed: Hub) -> None:
    make(formed)
    fields = shown_form(formed, "/admin/jobs/edit/sync-1")
    add_user(formed, "li.na", "admin")
    formed.log_in("li.na")
    formed.post("/admin/jobs/edit/sync-1", **{**fields, "s.token": f"{CANARY}-2"})
    for path in ("/admin/jobs/edit/sync-1", "/admin/jobs/details/sync-1?tab=configuration"):
        page = formed.page(path)
        rows = re.findall(r"<code>(user|token)</code>.*?</time> · ([\w.]+)", page, re.S)
        assert sorted(rows) == [("token", "li.na"), ("user", "admin")], path
        assert CANARY not in page


def test_a_form_sent_twice_starts_one_run(hub: Hub) -> None:
    insert_job(hub)
    path = "/admin/jobs/sync-1/run"
    fields = shown_form(hub, path)
    first, second = (hub.post(path, **fields).headers["location"] for _ in range(2))
    assert first == second and len(hub.sql("SELECT FROM job_logs")) == 1
    assert len(hub.sql("SELECT FROM audit WHERE action = 'job.run'")) == 1
    assert hub.post(path, **shown_form(hub, path)).headers["location"] != first, (
        "shown anew it is another wish"
    )
    for token in ({}, {}, {"token": "none"}, {"token": "none"}):
        hub.post(path, **token)
    assert len(hub.sql("SELECT FROM job_logs")) == 6, "without a token nothing is the same"


def test_a_form_saved_twice_saves_once_and_says_nothing_of_another(formed: Hub) -> None:
    new = {**GOOD, "id": " sync-1 ", "handler_path": HANDLER, "token": str(uuid4())}
    new |= {"p.kind": '"delta"', "secret_cfg": "", "s.user": "li", "s.token": CANARY}
    for fields in ({}, {"then": "run"}, {"then": "run"}):
        answer = formed.post("/admin/jobs/create", **new, **fields)
        assert answer.status_code == 303, errors_of(answer.text)
        formed.page(answer.headers["location"])
    assert len(formed.sql("SELECT FROM job_revisions")) == len(formed.sql("SELECT FROM job_logs")) == 1
    for other in ({"priority": "8"}, {"s.token": "another-secret"}, {"p.kind": '"full"'}):
        answer = formed.post("/admin/jobs/create", **{**new, **other})
        assert answer.status_code == 400 and "already" in errors_of(answer.text)["id"], other

    form = shown_form(formed, "/admin/jobs/edit/sync-1")
    form |= {"priority": "7", "s.token": "replaced-secret"}
    for _ in range(2):
        answer = formed.post("/admin/jobs/edit/sync-1", **form)
        assert answer.status_code == 303 and "said" not in answer.headers["location"]
    assert len(formed.sql("SELECT FROM job_revisions")) == 2
    assert formed.post("/admin/jobs/edit/sync-1", **{**form, "priority": "6"}).status_code == 409


def test_the_preview_says_what_the_policies_mean(formed: Hub) -> None:
    make(formed)
    answer = formed.post(
        "/admin/jobs/preview", **{**GOOD, "of": "sync-1", "max_attempts": "3", "retry_delays": "60, 300"}
    ).json()
    assert "Tried 3 times at most, after 1 min, 5 min." in answer["blocks"]["policies"]


def test_of_many_jobs_a_list_asks_only_for_its_rows(hub: Hub) -> None:
    hub.sql(
        "INSERT INTO jobs (id, cron_expr, handler_path)"
        " SELECT 'j-' || lpad(n::text, 4, '0'), '0 0 1 1 *', 'webjobs.jobs:PlainJob'"
        " FROM generate_series(1, 1100) n"
    )
    first = hub.page("/admin/jobs/list")
    assert "All 1,100" in first
    insert_run(hub, "FAILURE", "j-0001")
    insert_run(hub, "FAILURE", "j-0900")
    hub.sql("DELETE FROM jobs WHERE id = 'j-0002'")
    fragment = hub.client.get("/admin/jobs/list", headers={"Hub-Live": "1"}).text
    rows = re.findall(r'<tr data-key="(j-\d+)".*?</tr>', fragment, re.S)
    assert rows == [f"j-{n:04}" for n in range(1, 51) if n != 2], "in the order that was shown"
    assert fragment.count("hub-failure") == 1, "each as it is now"
    again = hub.page("/admin/jobs/list")
    assert "Failing 2" in again and again.index("j-0900") < again.index("j-0003")


def test_an_action_comes_back_to_the_list_as_it_was(hub: Hub) -> None:
    insert_job(hub, "a-1")
    page = hub.page("/admin/jobs/list?state=all&sort=name&q=a")
    back = "/admin/jobs/list?state=all&sort=name&q=a"
    assert page.count(f'name="back" value="{back}"') == 2, "one Job's switch, and the bar for many"
    assert page.count(f"&back={quote(back, safe='/')}") == 3, "switch, clear, delete"
