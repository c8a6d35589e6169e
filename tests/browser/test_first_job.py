"""A new user's first minutes: sign in, another password, the three example Jobs, and their first runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.reader import LOOKS, Look, Reader, reader
from tests.program import OWN_PASSWORD, Program
from tests.standins import DidiStandin, OaStandin, make_dataset
from tests.standins.__main__ import job_settings

RESULTS = {
    "SyncOAToDidiTokenJob": "the OA gave a token",
    "SyncOAToDidiExportFormJob": "page_size",
    "SyncOAToDidiLegalEntitySyncJob": "already right",
}


def change_password(someone: Reader, made_up: str) -> None:
    someone.sign_in("admin", made_up)
    someone.at("/admin/account/password**")
    someone.sees(someone.say("password_must"))
    someone.type_in(current=made_up, new=OWN_PASSWORD, again=OWN_PASSWORD)
    someone.page.press("[name=again]", "Enter")
    someone.at("/admin/")


def make_job(
    someone: Reader, class_name: str, public: dict[str, object], secret: dict[str, str], name: str
) -> None:
    """From the page's own link, through the picker of handlers, the fields and the presets."""
    page = someone.page
    someone.go("/admin/jobs/list")
    page.locator("main a[href='/admin/jobs/create']").first.click()
    someone.type_in(name=name, id=class_name.lower())
    page.fill("#handler-filter", f"didi {class_name.lower()}")
    expect(page.locator("[data-pick]").filter(visible=True)).to_have_count(1)
    page.locator(f"[data-pick$=':{class_name}']").click()
    expect(page.locator("[data-block=about]")).to_contain_text(class_name)
    for kind, values in (("p", public), ("s", secret)):
        for key, text in values.items():
            someone.type_in(**{f"{kind}.{key}": str(text)})
    expect(page.get_by_text(someone.say("missing"), exact=True).filter(visible=True)).to_have_count(0)
    # While secrets are typed the preview of the parameters comes back, and must not undo them.
    someone.button("preset.daily").click()
    someone.type_in(timezone="Asia/Shanghai")
    expect(page.locator("[data-block=schedule]")).to_contain_text("02:00")
    page.click("#save")
    someone.at(f"/admin/jobs/details/{class_name.lower()}**")
    someone.sees(name, "h1")


@pytest.mark.parametrize("look", LOOKS[:2], ids=str)
def test_the_example_jobs_are_made_in_their_form_and_run(
    chromium: Browser, tmp_path: Path, look: Look
) -> None:
    data = make_dataset(60)
    with (
        OaStandin(data) as oa,
        DidiStandin(data) as didi,
        Program(tmp_path) as program,
        reader(chromium, look, program.url) as someone,
    ):
        change_password(someone, program.password)
        assert not (program.data / "admin-password").exists()
        someone.sees(someone.say("empty_first"))
        for class_name, (public, secret) in job_settings(oa.url, didi.url).items():
            make_job(someone, class_name, public, secret, f"OA 到滴滴 {class_name}")
            someone.link("run_now").click()
            someone.confirm(someone.say("run_now"))
            someone.at("/admin/joblogs/details/*")
            someone.sees(someone.say("status.SUCCESS"), ".hub-head", timeout_s=30)
            someone.page.locator("[data-tab=result]").click()
            someone.sees(RESULTS[class_name], "#content")
            shown = someone.page.content()
            assert not [text for key, text in secret.items() if key not in ("rest_user",) and text in shown]
        assert didi.edited()
        someone.go("/admin/")
        someone.sees(someone.say("verdict.fine"))
        someone.page.goto("about:blank")  # a page that stays would miss the hub
        assert program.stop() == 0
