"""Every page, looked at: empty, with little data and with much, in both languages, wide, narrow and dark.

On each, axe-core finds no serious fault, nothing is wider than the screen, no place of a text was left
unfilled, and a picture is kept in screenshots/ for people to look at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, StorageState

from tests.browser import seed
from tests.browser.hubs import ROLES, Hub, hub_in
from tests.browser.reader import DARK, LOOKS, Look, Reader, reader

PICTURES = Path(__file__).parents[2] / "screenshots"
UNFILLED = re.compile(r"(?<!\{)\{[a-z_]+\}(?!\})|\bundefined\b|\bNaN\b|\bNone\b|\[object ")
TALLEST = 6000  # px: what follows looks the same
_TOO_WIDE = "document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
_AXE = """async () => (await axe.run({resultTypes: ["violations"], preload: false})).violations
  .filter((one) => ["serious", "critical"].includes(one.impact))
  .map((one) => one.id + ": " + one.nodes.slice(0, 3).map((node) =>
    `${node.target} ${node.html.slice(0, 150)} ${node.any[0]?.message ?? ""}`).join(" | "))"""


@dataclass
class Stage:
    """A hub with data, and one signed-in browser state per role."""

    name: str
    hub: Hub
    runs: dict[str, int]
    states: dict[str, StorageState]


@dataclass
class View:
    """A page by its address, after something was done in it."""

    name: str
    path: str
    act: Callable[[Reader], Any] | None = None
    role: str = "admin"
    status: int = 200


def common(stage: Stage) -> list[View]:
    return [
        View("overview", "/admin/"),
        View("jobs", "/admin/jobs/list"),
        View("runs", "/admin/joblogs/list"),
        View("audit", "/admin/audit"),
    ]


def empty(stage: Stage) -> list[View]:
    return [
        View("login", "/admin/login", role=""),
        View("login-wrong", "/admin/login", _log_in_wrongly, role=""),
        *common(stage),
        View("overview-as-viewer", "/admin/", role="viewer"),
        View("jobs-as-viewer", "/admin/jobs/list", role="viewer"),
        View("users", "/admin/users/list"),
        View("user-create", "/admin/users/create"),
        View("user-create-wrong", "/admin/users/create", _make_user_wrongly),
        View("account", "/admin/account"),
        View("password", "/admin/account/password"),
        View("more", "/admin/more"),
        View("menu", "/admin/", lambda someone: someone.page.locator(".hub-menu summary").last.click()),
        View("pause", "/admin/pause"),
        View("job-create", "/admin/jobs/create"),
        View("job-create-wrong", "/admin/jobs/create", _create_wrongly),
        View("not-found", "/admin/jobs/details/nobody", status=404),
        View("not-allowed", "/admin/users/list", role="viewer", status=403),
    ]


def little(stage: Stage) -> list[View]:
    runs, job = stage.runs, "/admin/jobs/details/failing"
    confirm = "/admin/jobs-bulk/confirm?back=/admin/jobs/list&action="
    return [
        *common(stage),
        View("overview-7d", "/admin/?hours=7d"),
        View("job", job),
        View("job-as-viewer", job, role="viewer"),
        View("job-synced", "/admin/jobs/details/oa-to-didi"),
        View("job-configuration", f"{job}?tab=configuration"),
        View("job-revisions", f"{job}?tab=revisions"),
        View("job-why", f"{job}?tab=why"),
        View("job-why-answer", f"{job}?tab=why&at=2026-01-05T10:00&zone=Asia/Shanghai"),
        View("job-menu", job, lambda someone: someone.page.locator("main .hub-menu summary").click()),
        View("job-disabled", "/admin/jobs/details/off"),
        View("job-edit", "/admin/jobs/edit/oa-to-didi"),
        View("job-edit-changed", "/admin/jobs/edit/failing", _change),
        View("job-edit-wrong", "/admin/jobs/edit/oa-to-didi", _save_wrongly),
        View("job-conflict", "/admin/jobs/edit/oa-export", lambda someone: _save_late(someone, stage.hub)),
        View("job-run", "/admin/jobs/failing/run"),
        View("job-run-open", "/admin/jobs/oa-to-didi/run", _open_parameters),
        View("job-restore", "/admin/jobs/restore/1/failing"),
        View("dialog-run", job, lambda someone: _open(someone, "run_now")),
        *[
            View(f"confirm-{verb}", f"{confirm}{verb}&id=failing&id=off")
            for verb in ("run", "enable", "disable")
        ],
        *[View(f"confirm-{verb}", f"{confirm}{verb}&id=failing") for verb in ("clear", "delete")],
        View("confirm-delete-refused", f"{confirm}delete&id=going"),
        View("jobs-ticked", "/admin/jobs/list", _tick),
        View("jobs-none", "/admin/jobs/list?q=nothing-like-it"),
        View("runs-none", "/admin/joblogs/list?q=nothing-like-it&span=24h&status=LOST"),
        View("run-success", f"/admin/joblogs/details/{runs['oa-to-didi']}"),
        View("run-result", f"/admin/joblogs/details/{runs['oa-to-didi']}?tab=result"),
        View("run-raw-result", f"/admin/joblogs/details/{runs['oa-export']}?tab=result"),
        View("run-failed", f"/admin/joblogs/details/{runs['failed']}"),
        View("run-traceback", f"/admin/joblogs/details/{runs['failed']}?tab=traceback"),
        View("run-configuration", f"/admin/joblogs/details/{runs['failed']}?tab=configuration"),
        View("run-retry", f"/admin/joblogs/details/{runs['failed']}?confirm=retry"),
        View("run-cancelled", f"/admin/joblogs/details/{runs['cancelled']}"),
        View("run-going", f"/admin/joblogs/details/{runs['going']}"),
        View("run-cancel", f"/admin/joblogs/details/{runs['going']}?confirm=cancel"),
        View("users", "/admin/users/list"),
    ]


def much(stage: Stage) -> list[View]:
    chatty = f"/admin/joblogs/details/{stage.runs['chatty']}"
    return [
        *common(stage),
        View("overview-7d", "/admin/?hours=7d&strips=all"),
        View("jobs-failing", "/admin/jobs/list?state=failing"),
        View("jobs-page-2", "/admin/jobs/list?page=2"),
        View("jobs-ticked", "/admin/jobs/list", _tick),
        View("job", "/admin/jobs/details/ehr-people"),
        View("job-long", "/admin/jobs/details/" + seed.ODD[0][0]),
        View("job-hostile", "/admin/jobs/details/" + seed.HOSTILE.replace("/", "%2F").replace("{", "%7B")),
        View("job-revisions", "/admin/jobs/details/ehr-people?tab=revisions"),
        View("runs-7d", "/admin/joblogs/list?span=7d"),
        View("runs-failed", "/admin/joblogs/list?status=FAILURE&job=oa-travel"),
        View("run-log", chatty),
        View("run-result", f"{chatty}?tab=result"),
    ]


VIEWS = {"empty": empty, "little": little, "much": much}
SEEDS: dict[str, Callable[[Hub], dict[str, int]]] = {
    "empty": lambda hub: {},
    "little": seed.little,
    "much": seed.much,
}


def _log_in_wrongly(someone: Reader) -> None:
    someone.seen.expected.add(400)
    someone.type_in(username="li.na", password="not this one")
    someone.page.press("[name=password]", "Enter")
    someone.sees(someone.say("login_wrong"))


def _make_user_wrongly(someone: Reader) -> None:
    someone.seen.expected.add(400)
    someone.type_in(username="li.na")
    someone.page.locator("main form .btn-primary").click()
    someone.page.locator(".invalid-feedback").first.wait_for()


def _create_wrongly(someone: Reader) -> None:
    someone.seen.expected.add(400)
    someone.page.click("#save")
    someone.page.locator(".hub-savebar [role=alert]:visible").wait_for()


def _change(someone: Reader) -> None:
    someone.type_in(cron_expr="30 2 * * 1-5", **{"p.pages": "12"})
    someone.page.locator("[data-block=difference] table").wait_for(state="attached")


def _save_wrongly(someone: Reader) -> None:
    someone.seen.expected.add(400)
    someone.type_in(
        cron_expr="0 25 * * *", timeout_s="soon", **{"p.edit_interval_ms": "-1", "p.oa_base_url": ""}
    )
    someone.page.click("#save")
    someone.page.locator(".hub-savebar [role=alert]:visible").wait_for()


def _save_late(someone: Reader, hub: Hub) -> None:
    someone.seen.expected.add(409)
    number = len(hub.sql("SELECT FROM job_revisions WHERE job_id = 'oa-export'"))
    saved = hub.admin.fill("/admin/jobs/edit/oa-export", {"timeout_s": str(100 + number)})
    assert saved.status_code == 303, saved.text
    someone.type_in(priority="7")
    someone.page.click("#save")
    someone.page.locator(".alert-warning").wait_for()


def _open_parameters(someone: Reader) -> None:
    someone.page.locator("main details summary").first.click()


def _open(someone: Reader, key: str) -> None:
    someone.link(key).click()
    someone.page.locator("dialog[open]").wait_for()


def _tick(someone: Reader) -> None:
    boxes = someone.page.locator("[name=id]")
    boxes.nth(0).check()
    boxes.nth(2).check()


@pytest.fixture(scope="module", params=list(VIEWS))
def stage(request: pytest.FixtureRequest, chromium: Browser, tmp_path_factory: Any) -> Iterator[Stage]:
    name: str = request.param
    with hub_in(tmp_path_factory.mktemp(name)) as hub:
        states = {}
        for role, username in ROLES.items():
            with reader(chromium, LOOKS[0], hub.url) as someone:
                someone.sign_in(username)
                states[role] = someone.page.context.storage_state()
        yield Stage(name, hub, SEEDS[name](hub), states)


def faults_of(someone: Reader) -> list[str]:
    """What is wrong with the page as it is shown."""
    page = someone.page
    found = [f"axe {fault}" for fault in page.evaluate(_AXE)]
    if (more := page.evaluate(_TOO_WIDE)) > 0:
        found.append(f"{more} px wider than the screen")
    if unfilled := UNFILLED.search(page.inner_text("body")):
        found.append(f"unfilled: {unfilled[0]}")
    return found


def look_at(someone: Reader, view: View, picture: Path) -> list[str]:
    someone.go(view.path, view.status)
    if view.act is not None:
        view.act(someone)
    found = faults_of(someone)
    # As tall as the page, so that bars at the lower edge of the screen cover nothing.
    height = min(someone.page.evaluate("document.documentElement.scrollHeight"), TALLEST)
    someone.page.set_viewport_size({"width": someone.look.width, "height": height})
    someone.page.screenshot(path=picture, caret="initial")
    someone.page.set_viewport_size(someone.look.options()["viewport"])
    found += someone.seen.faults
    someone.seen.faults.clear()
    return found


@pytest.mark.parametrize("look", [*LOOKS, *DARK], ids=str)
def test_every_page(stage: Stage, look: Look, chromium: Browser) -> None:
    faults = []
    for role in ("", "viewer", "admin"):
        views = [view for view in VIEWS[stage.name](stage) if view.role == role]
        with reader(chromium, look, stage.hub.url, stage.states.get(role)) as someone:
            someone.page.context.add_init_script(AXE_SCRIPT)
            for view in views:
                PICTURES.mkdir(exist_ok=True)
                picture = PICTURES / f"{stage.name}-{view.name}-{look}.png"
                faults += [f"{view.name}: {fault}" for fault in look_at(someone, view, picture)]
    assert not faults, "\n" + "\n".join(faults)
