"""Who may what: each role sees what it may do and is told what it lacks; accounts, language, keys."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Visit
from tests.browser.hubs import Hub
from tests.browser.reader import Look, Reader, reader
from tests.program import OWN_PASSWORD

ACTIONS = ("run_now", "edit", "retry", "retry_today", "restore", "new_job", "pause_all", "run_short")
MAY = {"viewer": set(), "operator": {"run_now", "retry", "retry_today", "run_short"}, "admin": set(ACTIONS)}
CLOSED = {
    "viewer": ["/admin/jobs/create", "/admin/users/list", "/admin/audit", "/admin/pause"],
    "operator": ["/admin/jobs/create", "/admin/users/list", "/admin/audit", "/admin/pause"],
    "admin": [],
}


def offered(someone: Reader) -> set[str]:
    """Which of ACTIONS the page has a button or a link for."""
    texts = someone.page.locator("main :is(a, button):not(svg a)").all_inner_texts()
    names = {text.strip() for text in texts}
    return {key for key in ACTIONS if someone.say(key) in names}


@pytest.fixture(scope="session")
def ended(hub: Hub) -> int:
    """A run that failed, of the Job `role-job`, which was changed since."""
    hub.make_job("role-job", hub.script("fail on purpose"))
    number = hub.run_job("role-job")
    query = "SELECT FROM job_logs WHERE id = $1 AND finished_at IS NOT NULL"
    hub.wait_until(lambda: bool(hub.sql(query, number)))
    hub.admin.fill("/admin/jobs/edit/role-job", {"timeout_s": "5"})
    return number


@pytest.mark.parametrize("role", list(MAY))
def test_each_role_is_offered_what_it_may_do(visit: Visit, ended: int, role: str, look: Look) -> None:
    with visit(role) as someone:
        seen = set()
        for path in (
            "/admin/",
            "/admin/more",
            "/admin/jobs/list",
            "/admin/jobs/details/role-job",
            "/admin/jobs/details/role-job?tab=revisions",
            f"/admin/joblogs/details/{ended}",
        ):
            someone.go(path)
            seen |= offered(someone)
        assert seen == MAY[role]
        for path in CLOSED[role]:
            someone.go(path, 403)
            someone.sees(someone.say("role.admin"))


def test_an_account_is_made_used_and_disabled(admin: Reader, hub: Hub, look: Look, chromium: Browser) -> None:
    name = f"new-{look}"
    admin.go("/admin/users/list")
    admin.page.locator("a[href='/admin/users/create']").click()
    admin.type_in(username=name)
    admin.page.locator("[name=role][value=operator]").check()
    admin.button("create_user").click()
    made_up = admin.page.locator(".hub-secret").inner_text()
    with reader(chromium, look, hub.url) as someone:
        someone.sign_in(name, made_up)
        someone.at("/admin/account/password**")
        someone.type_in(current=made_up, new=OWN_PASSWORD, again=OWN_PASSWORD)
        someone.page.press("[name=again]", "Enter")
        someone.at("/admin/")
        someone.go("/admin/account")  # a page that asks for nothing by itself meanwhile
        admin.go(f"/admin/users/list?q={name}")
        admin.page.locator(".hub-person", has_text=name).get_by_role(
            "button", name=admin.say("disable")
        ).click()
        admin.sees(admin.say("disabled"), f".hub-person:has-text('{name}')")
        someone.go("/admin/jobs/list")
        someone.at("/admin/login**")


def test_the_language_is_switched_and_stays(hub: Hub, look: Look, chromium: Browser) -> None:
    other = Look("zh" if look.language == "en" else "en", look.width)
    name = f"reads-{look}"
    assert hub.admin.post("/admin/users/create", data={"username": name, "role": "viewer"}).status_code == 200
    hub.sql("UPDATE users SET must_change_password = false, password_hash = (SELECT password_hash FROM users"
            " WHERE username = 'li.na') WHERE username = $1", name)  # fmt: skip
    with reader(chromium, look, hub.url) as someone:
        someone.sign_in(name)
        someone.go("/admin/more" if look.is_phone else "/admin/jobs/list")
        someone.button("other_language").locator("visible=true").click()
        expect(someone.page.locator("html")).to_have_attribute("lang", other.say("lang"))
        someone.go("/admin/joblogs/list")
        someone.sees(other.say("runs"), "h1")


def test_the_keyboard_reaches_pages_and_search(visit: Visit, look: Look) -> None:
    if look.is_phone:
        return  # without a keyboard
    with visit("viewer") as someone:
        someone.go("/admin/")
        someone.page.keyboard.press("g")
        someone.page.keyboard.press("j")
        someone.at("/admin/jobs/list")
        someone.page.keyboard.press("/")
        someone.page.keyboard.type("nothing-like-it")
        someone.page.keyboard.press("Enter")
        someone.sees(someone.say("no_jobs"))


def test_log_out_ends_the_session(hub: Hub, look: Look, chromium: Browser) -> None:
    with reader(chromium, look, hub.url) as someone:
        someone.sign_in("zhou.min")
        someone.page.locator("header .hub-menu summary").click()
        someone.button("logout").locator("visible=true").click()
        someone.at("/admin/login")
        someone.go("/admin/jobs/list")
        someone.at("/admin/login?next=**")
