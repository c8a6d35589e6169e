"""What people do to Jobs: switch, edit, restore, try, clear, delete, pause all; and why one did not run."""

from __future__ import annotations

import json
import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.hubs import Hub
from tests.browser.reader import Look, Reader


def runs_of(hub: Hub, job_id: str) -> int:
    return int(hub.sql("SELECT count(*) FROM job_logs WHERE job_id = $1", job_id)[0]["count"])


def choose(someone: Reader, key: str) -> None:
    """From the Job's menu of rarer actions."""
    someone.page.locator("main .hub-menu summary").click()
    someone.page.locator("main .hub-menu a", has_text=someone.say(key)).click()


def test_a_job_is_disabled_and_enabled_in_the_list(hub: Hub, visit: Visit, look: Look) -> None:
    job_id = f"switched-{look}"
    hub.make_job(job_id, hub.script("end"))
    with visit("operator") as someone:
        for key, is_on in (("disable", False), ("enable", True)):
            someone.go(f"/admin/jobs/list?q={job_id}")
            someone.page.get_by_role("switch").click()
            someone.confirm(someone.say(f"verb.{key}", n=1))
            someone.sees(someone.say(f"said.{key}d", n=1))
            assert f"q={job_id}" in someone.page.url
            expect(someone.page.get_by_role("switch")).to_have_attribute("aria-checked", str(is_on).lower())


def test_an_edit_shows_what_it_changes_and_a_revision_is_restored(
    admin: Reader, hub: Hub, look: Look
) -> None:
    job_id = f"restored-{look}"
    hub.make_job(job_id, hub.script("end"))
    page = admin.page
    admin.go(f"/admin/jobs/details/{job_id}")
    admin.link("edit").click()
    admin.at(f"/admin/jobs/edit/{job_id}")
    page.get_by_label("tone").select_option(label="loud")
    admin.type_in(cron_expr="0 25 * * *")
    expect(page.locator("[data-block=schedule]")).to_contain_text("25")  # what is wrong, before saving
    admin.type_in(cron_expr="15 3 * * *")
    expect(page.locator("[data-block=schedule]")).to_contain_text("03:15")
    expect(page.locator("[data-block=difference]")).to_contain_text("15 3 * * *")
    page.press("[name=cron_expr]", "Control+s")
    admin.at(f"/admin/jobs/details/{job_id}**")

    admin.go(f"/admin/jobs/details/{job_id}?tab=revisions")
    admin.sees("15 3 * * *")
    admin.link("restore").click()
    admin.sees("15 3 * * *", "dialog[open]")
    admin.confirm(admin.say("restore_verb", number=1))
    admin.sees(admin.say("said.restored"))
    [job] = hub.sql("SELECT cron_expr, public_cfg FROM jobs WHERE id = $1", job_id)
    assert job["cron_expr"] == "0 0 29 2 *" and "tone" not in job["public_cfg"]


def test_enter_does_what_the_page_is_for(admin: Reader, hub: Hub, look: Look) -> None:
    job_id = f"enter-{look}"
    hub.make_job(job_id, hub.script("end"))
    page = admin.page
    admin.go(f"/admin/jobs/edit/{job_id}")
    admin.type_in(priority="7")
    page.press("[name=priority]", "Enter")
    admin.at(f"/admin/jobs/details/{job_id}**")
    assert hub.sql("SELECT priority FROM jobs WHERE id = $1", job_id)[0]["priority"] == 7
    admin.link("run_now").click()
    page.locator("dialog[open]").get_by_text(admin.say("change_params")).click()
    admin.type_in(**{"p.pages": "3"})
    page.press("[name='p.pages']", "Enter")
    admin.at("/admin/joblogs/details/*")
    [run] = hub.sql("SELECT params FROM job_logs WHERE job_id = $1", job_id)
    assert json.loads(run["params"]) == {"pages": 3}


def test_a_double_click_on_save_saves_once(admin: Reader, hub: Hub, look: Look) -> None:
    job_id = f"twice-{look}"
    hub.make_job(job_id, hub.script("end"))
    admin.go(f"/admin/jobs/edit/{job_id}")
    admin.type_in(priority="5")
    admin.page.locator("[name=then]").dblclick()
    admin.at("/admin/joblogs/details/*")
    assert runs_of(hub, job_id) == 1
    assert hub.sql("SELECT count(*) FROM job_revisions WHERE job_id = $1", job_id)[0]["count"] == 2


def test_a_wrong_field_is_told_beside_it_and_nothing_typed_is_lost(
    admin: Reader, hub: Hub, look: Look
) -> None:
    job_id = f"wrong-{look}"
    hub.make_job(job_id, hub.script("end"))
    admin.go(f"/admin/jobs/edit/{job_id}")
    admin.seen.expected.add(400)
    admin.type_in(name="Typed 名称", **{"p.pages": "169", "timeout_s": "soon"})
    admin.page.click("#save")
    expect(admin.page.locator("[id='p.pages-error']")).to_contain_text("168")
    expect(admin.page.locator("#timeout_s-error")).to_contain_text("soon")
    expect(admin.page.locator("[name=name]")).to_have_value("Typed 名称")
    expect(admin.page.locator("[name='p.pages']")).to_be_focused()


def test_what_was_typed_stays_while_nobody_could_save_it(admin: Reader, hub: Hub, look: Look) -> None:
    job_id = f"kept-{look}"
    hub.make_job(job_id, hub.script("end"))
    page = admin.page
    admin.go(f"/admin/jobs/edit/{job_id}")
    with page.expect_response("**/preview"):
        admin.type_in(name="Typed 名称")
    with page.expect_response("**/preview"):
        page.locator("#save").focus()

    def told(key: str) -> None:
        page.click("#save")
        expect(page.locator(".hub-savebar [role=alert]:visible")).to_contain_text(admin.say(key))
        expect(page.locator("[name=name]")).to_have_value("Typed 名称")

    admin.seen.expected.add(503)
    page.route("**/admin/**", lambda route: route.fulfill(status=503))  # as without the database
    told("no_answer")
    page.unroute("**/admin/**")
    cookies = page.context.cookies()
    page.context.clear_cookies()
    told("signed_out")
    page.context.add_cookies(cookies)  # type: ignore[arg-type]  # as they were
    page.context.set_offline(True)
    told("no_answer")
    assert all("ERR_INTERNET_DISCONNECTED" in fault for fault in admin.seen.faults)
    admin.seen.faults.clear()
    page.context.set_offline(False)
    page.click("#save")
    admin.at(f"/admin/jobs/details/{job_id}**")
    admin.sees("Typed 名称", "h1")


def test_secrets_typed_before_an_error_are_asked_again_until_they_are_typed(
    admin: Reader, hub: Hub, look: Look
) -> None:
    job_id = f"secrets-{look}"
    hub.make_job(job_id, hub.script("end"))
    page = admin.page
    admin.go(f"/admin/jobs/edit/{job_id}")
    admin.type_in(**{"nk.1": "newkey", "nv.1": "typed-77", "s.token": "typed-88", "timeout_s": "77"})
    expect(page.locator("[data-block=difference]")).to_contain_text("77")  # though no preview knows the value
    admin.seen.expected.add(400)
    admin.type_in(cron_expr="0 25 * * *")
    with page.expect_response("**/preview"):  # of the page that tells what is wrong
        page.click("#save")
        admin.sees(admin.say("error.summary", count=3), ".hub-savebar")
    with page.expect_response("**/preview"):
        admin.type_in(cron_expr="0 5 * * *")
    expect(page.locator("[data-block=schedule]")).to_contain_text("05:00")
    for name in ("s.token", "s.newkey"):
        expect(page.locator(f"[id='{name}-error']")).to_have_text(admin.say("error.secret_again"))
        expect(page.locator(f"[id='{name}'][aria-describedby='{name}-error']")).to_have_attribute(
            "aria-invalid", "true"
        )
    expect(page.locator("[name='nk.1']")).to_have_value("newkey")
    page.locator("[data-more]").click()
    expect(page.locator("[name='nk.3']")).to_have_value("")
    expect(page.locator("[id='s.newkey-error']")).to_have_count(1)
    admin.type_in(**{"nv.1": "typed-77"})
    page.click("#save")
    admin.at(f"/admin/jobs/details/{job_id}**")
    page.goto(f"{hub.url}/admin/jobs/edit/{job_id}")
    expect(page.locator("[name='r.newkey']")).to_have_count(1)


def test_the_second_of_two_who_edit_is_told(admin: Reader, hub: Hub, look: Look) -> None:
    job_id = f"shared-{look}"
    hub.make_job(job_id, hub.script("end"))
    admin.go(f"/admin/jobs/edit/{job_id}")
    assert hub.admin.fill(f"/admin/jobs/edit/{job_id}", {"timeout_s": "77"}).status_code == 303
    admin.seen.expected.add(409)
    admin.type_in(priority="5")
    admin.page.click("#save")
    admin.sees("77", ".alert-warning")
    expect(admin.page.locator("[name=priority]")).to_have_value("5")
    expect(admin.page.locator("[data-block=difference]")).to_contain_text("5")  # still to be saved


def test_it_is_tried_and_run_with_other_parameters(hub: Hub, visit: Visit, look: Look) -> None:
    job_id, other = f"tried-{look}", hub.script("say only this once", "end")
    stored = hub.script("fail should not run")
    hub.make_job(job_id, stored)
    with visit("operator") as someone:
        someone.go(f"/admin/jobs/details/{job_id}")
        someone.link("run_now").click()
        someone.confirm(someone.say("try_it"))
        someone.at("/admin/joblogs/details/*")
        someone.sees("nothing was said")

        someone.go(f"/admin/jobs/{job_id}/run")
        someone.page.get_by_text(someone.say("change_params")).click()
        was = someone.page.get_by_text(someone.say("was", value=str(stored.path)))
        expect(was).to_be_hidden()
        someone.type_in(**{"p.script": str(other.path)})
        expect(was).to_be_visible()
        someone.sees(someone.say("n_changed", n=1), "main output")
        someone.button("run_now").click()
        someone.at("/admin/joblogs/details/*")
        someone.sees("only this once", "#log")
        someone.page.locator("[data-tab=configuration]").click()
        someone.sees(str(other.path), "#panel-configuration")


def test_logs_are_cleared_and_the_job_is_deleted(admin: Reader, hub: Hub, look: Look) -> None:
    job_id, script = f"deleted-{look}", hub.script("end")
    hub.make_job(job_id, script, name=f"Gone {look}")
    for _ in range(2):
        number = hub.run_job(job_id)
        admin.go(f"/admin/joblogs/details/{number}")
        admin.sees(admin.say("status.SUCCESS"), ".hub-head")
    admin.go(f"/admin/jobs/details/{job_id}")
    choose(admin, "bulk.clear")
    admin.sees("2", "dialog[open]")
    admin.confirm(admin.say("verb.clear", n=2))
    admin.sees(admin.say("said.cleared", n=2))
    assert runs_of(hub, job_id) == 0

    script.path.write_text("say it goes on\n")
    going = hub.run_job(job_id)
    admin.go(f"/admin/jobs/details/{job_id}")
    choose(admin, "bulk.delete")
    admin.sees(f"#{going}", "dialog[open]")
    expect(admin.page.locator("dialog[open] button")).to_have_text(admin.say("disable_instead"))
    script.add("end")
    admin.go(f"/admin/joblogs/details/{going}")
    admin.sees(admin.say("status.SUCCESS"), ".hub-head")

    admin.go(f"/admin/jobs/details/{job_id}")
    choose(admin, "bulk.delete")
    admin.page.locator("dialog[open] [name=typed]").fill(job_id)
    admin.confirm(admin.say("verb.delete", n=1, records=1))
    admin.sees(admin.say("said.deleted", n=1))
    admin.go(f"/admin/jobs/details/{job_id}", 404)
    assert runs_of(hub, job_id) == 0


def test_many_are_disabled_at_once(hub: Hub, visit: Visit, look: Look) -> None:
    for number in range(3):
        hub.make_job(f"many-{look}-{number}", hub.script("end"))
    with visit("operator") as someone:
        someone.go(f"/admin/jobs/list?q=many-{look}")
        boxes = someone.page.locator("[name=id]")
        boxes.nth(0).check()
        boxes.nth(2).check()
        someone.sees(someone.say("n_selected", n=2))
        someone.button("bulk.disable").click()
        someone.confirm(someone.say("verb.disable", n=2))
        someone.sees(someone.say("said.disabled", n=2))
        expect(someone.page.locator("[role=switch][aria-checked=false]")).to_have_count(2)


def test_all_is_paused_and_resumed_with_a_banner_on_every_page(admin: Reader, hub: Hub, look: Look) -> None:
    job_id = f"paused-{look}"
    hub.make_job(job_id, hub.script("end"))
    admin.go("/admin/")
    admin.link("pause_all").click()
    admin.page.locator("dialog[open] .btn-primary").click()
    admin.sees("admin", ".hub-paused")
    number = hub.run_job(job_id)
    for path in (f"/admin/joblogs/details/{number}", "/admin/joblogs/list", "/admin/users/list", "/admin/"):
        admin.go(path)
        expect(admin.page.locator(".hub-paused")).to_be_visible()
    admin.go(f"/admin/joblogs/details/{number}")
    admin.sees(admin.say("waits_paused"))
    admin.button("resume").click()
    expect(admin.page.locator(".hub-paused")).to_have_count(0)
    admin.sees(admin.say("status.SUCCESS"), ".hub-head")


def test_why_it_did_not_run_is_answered_for_a_moment(admin: Reader, hub: Hub, look: Look) -> None:
    job_id = f"why-{look}"
    hub.make_job(job_id, hub.script("end"))
    admin.go(f"/admin/jobs/details/{job_id}")
    admin.link("tab.why").first.click()
    admin.page.fill("[name=at]", "2026-01-05T10:00")
    admin.button("tab.why").click()
    expect(admin.page.locator("#answer .hub-sentence")).to_have_text(
        re.compile(r".*20\d\d-\d\d-\d\d|.*\d\d:\d\d")
    )
