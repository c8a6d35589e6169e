"""A new user's first minutes: sign in, another password, the main Job through its form, and its first run."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.program import Program
from tests.standins import DidiStandin, OaStandin, make_dataset
from tests.standins.__main__ import job_settings

CLASS = "SyncOAToDidiLegalEntitySyncJob"
NEW_PASSWORD = "a password of my own 7"


def sign_in(page: Page, program: Program) -> None:
    first = program.password
    page.goto(f"{program.url}/admin")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", first)
    page.press("[name=password]", "Enter")
    page.wait_for_url("**/admin/account/password*")
    for name, text in (("current", first), ("new", NEW_PASSWORD), ("again", NEW_PASSWORD)):
        page.fill(f"[name={name}]", text)
    page.press("[name=again]", "Enter")
    page.wait_for_url(f"{program.url}/admin/")


def test_the_main_job_is_made_in_its_form_and_run(page: Page, tmp_path: Path) -> None:
    data = make_dataset(60)
    with OaStandin(data) as oa, DidiStandin(data) as didi, Program(tmp_path) as program:
        public, secret = job_settings(oa.url, didi.url)[CLASS]
        sign_in(page, program)
        assert not (program.data / "admin-password").exists()
        page.goto(f"{program.url}/admin/jobs/create")
        page.fill("[name=id]", "oa-to-didi")
        page.fill("[name=name]", "OA 公司同步到滴滴")
        page.fill("[name=handler_path]", f"extensions.sync_oa_to_didi.job:{CLASS}")
        for kind, values in (("p", public), ("s", secret)):
            for name, text in values.items():
                page.fill(f"[name='{kind}.{name}']", text)
        # While secrets are typed the preview of the parameters comes back, and must not undo them.
        page.fill("[name=cron_expr]", "0 3 * * *")
        expect(page.locator("[data-block=schedule]")).to_contain_text("03:00")
        page.click("#save")
        page.wait_for_url("**/admin/jobs/details/oa-to-didi*")
        page.goto(f"{program.url}/admin/jobs/oa-to-didi/run")
        page.locator("main form button.btn-primary").click()
        page.wait_for_url("**/admin/joblogs/details/*")
        expect(page.locator("main .hub-head")).to_contain_text("Success", timeout=30_000)
        shown = page.content()
        assert "already right" in shown and not [text for text in secret.values() if text in shown]
        assert didi.edited()
        page.goto("about:blank")  # a page that stays would miss the hub
        assert program.stop() == 0
