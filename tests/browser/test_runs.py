"""A run: started, watched while it goes, cancelled, retried both ways."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.hubs import Hub
from tests.browser.reader import Look


def test_a_run_is_started_watched_and_cancelled(hub: Hub, visit: Visit, look: Look) -> None:
    script = hub.script("say first line", "progress 1/4")
    hub.make_job(f"watched-{look}", script)
    with visit("operator") as someone:
        page = someone.page
        someone.go(f"/admin/jobs/details/watched-{look}")
        someone.link("run_now").click()
        someone.confirm(someone.say("run_now"))
        someone.at("/admin/joblogs/details/*")
        someone.sees("first line", "#log")
        someone.sees(someone.say("status.RUNNING"), ".hub-head")
        script.add("warn second line, 第二行")
        someone.sees("second line, 第二行", "#log")
        assert page.locator("#log [data-level=WARNING]").count() == 1
        page.reload()
        page.goto(f"{page.url}?confirm=cancel")  # as the overview leads here
        page.locator("dialog[open] [data-close]").click()
        script.add("say third line", "progress 3/4")
        someone.sees("third line", "#log")
        someone.sees("75%")
        expect(page.locator("dialog[open]")).to_have_count(0)  # what was answered is not asked again
        expect(page.locator("#log .hub-ln", has_text="first line")).to_have_count(1)

        someone.link("cancel_run").click()
        someone.confirm(someone.say("cancel_run"))
        someone.sees(someone.say("status.CANCELLED"), ".hub-head")
        someone.sees("li.na", ".hub-told")
        expect(someone.link("cancel_run")).to_have_count(0)
        page.locator("[data-tab=result]").click()
        someone.sees("was told to stop", "#panel-result")
        page.locator("[data-tab=log]").click()
        with page.expect_download() as download:
            someone.link("download").click()
        assert "second line, 第二行" in download.value.path().read_text(encoding="utf-8")


def test_a_failed_run_is_retried_as_it_ran_and_with_todays_settings(
    hub: Hub, visit: Visit, look: Look
) -> None:
    old, new = hub.script("say by the old one", "fail no luck today"), hub.script("say by the new one", "end")
    job_id = f"retried-{look}"
    hub.make_job(job_id, old)
    run_id = hub.run_job(job_id)
    with visit("admin") as someone:
        page = someone.page
        someone.go(f"/admin/joblogs/details/{run_id}")
        someone.sees(someone.say("status.FAILURE"), ".hub-head")
        someone.sees("RuntimeError: no luck today", ".hub-told")
        someone.go(f"/admin/jobs/edit/{job_id}")
        someone.type_in(**{"p.script": str(new.path)})
        page.click("#save")
        someone.at(f"/admin/jobs/details/{job_id}**")

        for key, told, status in [
            ("retry", "by the old one", "status.FAILURE"),
            ("retry_today", "by the new one", "status.SUCCESS"),
        ]:
            someone.go(f"/admin/joblogs/details/{run_id}")
            someone.link("retry_today").click()
            someone.sees(str(new.path), "dialog[open]")
            someone.confirm(someone.say(key))
            someone.page.wait_for_url(lambda url: "/details/" in url and not url.endswith(f"/{run_id}"))
            someone.sees(someone.say(status), ".hub-head")
            someone.sees(told, "#log")
