"""What only scripts do: keys, rows that stay true, the JSON editor, a span dragged in the scatter."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.hubs import Hub
from tests.browser.reader import Look

pytestmark = pytest.mark.parametrize("look", [Look("en", 1280)], ids=str)


def test_keys_lead_through_a_list_that_stays_true(hub: Hub, visit: Visit) -> None:
    script = hub.script("say going")
    for name in ("keys-a", "keys-b"):
        hub.make_job(name, script)
    with visit() as someone:
        page = someone.page
        someone.go("/admin/jobs/list?q=keys-&sort=name")
        row = page.locator("tr[data-key=keys-b]")
        page.keyboard.press("j")
        page.keyboard.press("j")
        expect(row.locator("a").first).to_be_focused()
        page.keyboard.press("x")
        someone.sees("1 selected", ".hub-bulk")
        page.keyboard.press("x")
        page.keyboard.press("k")
        page.keyboard.press("j")
        page.keyboard.press("r")
        someone.confirm(someone.say("run_now"))
        someone.at("/admin/joblogs/details/*")
        page.go_back()
        hub.run_job("keys-a")
        expect(page.locator("tr[data-key=keys-a] .hub-running")).to_be_visible(timeout=20_000)
        script.add("end")
        expect(page.locator("tr[data-key=keys-a] .hub-success")).to_be_visible(timeout=20_000)
        page.locator("body").press("?")
        someone.sees(someone.say("key.tick"), "dialog[open]")


def test_keys_can_be_switched_off_on_every_page(hub: Hub, visit: Visit) -> None:
    hub.make_job("keys-off", hub.script("end"))
    first, second = (hub.run_job("keys-off") for _ in range(2))
    with visit() as someone:
        page = someone.page
        someone.go(f"/admin/joblogs/details/{second}")
        someone.sees(someone.say("status.SUCCESS"), ".hub-head")
        page.locator("body").press("?")
        page.locator("#hub-keys-on").uncheck()
        page.keyboard.press("Escape")
        expect(page.locator("dialog.hub-fetched")).to_have_count(0)
        page.locator("body").press("w")
        expect(page.locator("#log-wrap")).to_have_attribute("aria-pressed", "true")
        page.locator("body").press("[")
        page.locator("body").press("?")
        page.locator("#hub-keys-on").check()
        assert page.url.endswith(f"/{second}")
        page.keyboard.press("Escape")
        expect(page.locator("dialog.hub-fetched")).to_have_count(0)
        page.locator("body").press("[")
        someone.at(f"/admin/joblogs/details/{first}")


def test_only_new_lines_behind_a_cut_are_counted(hub: Hub, visit: Visit) -> None:
    script = hub.script(*(f"say {number} {'x' * 2000}" for number in range(150)))
    hub.make_job("pill", script)
    run_id = hub.run_job("pill")
    with visit() as someone:
        page = someone.page
        someone.go(f"/admin/joblogs/details/{run_id}")
        someone.sees("149 x", "#log")
        page.locator("#log-follow").click()
        for number in range(2):
            script.add(f"say so {number}")
            expect(page.locator("#log-pill")).to_contain_text(str(number + 1))
        script.add("end")


def test_the_json_editor_tells_where_it_is_wrong_and_can_be_undone(hub: Hub, visit: Visit) -> None:
    hub.make_job("json", hub.script())
    with visit() as someone:
        page = someone.page
        someone.go("/admin/jobs/edit/json")
        page.locator("#json > summary").click()
        area = page.locator("#public_cfg")
        area.fill('{\n"名称": "中文", "n": [1 2],\n"script": "x"}')
        says = page.locator("#json .hub-json-says")
        expect(says).to_have_text("Line 2, column 21: " + someone.say("json.comma"))
        expect(page.locator("#json .hub-json-bad")).to_have_text("2")
        expect(page.locator("#json .hub-json-name").first).to_have_text('"名称"')
        copy, text = (page.locator(f"#json {part}").bounding_box() for part in (".hub-json-copy", "textarea"))
        assert copy and text and (copy["x"], copy["y"]) == (text["x"], text["y"])
        typed = '{"script": "x",  "名称": "中文"}'
        area.fill(typed)
        expect(says).to_have_text("")
        page.locator("[data-format=public_cfg]").click()
        expect(area).to_have_value('{\n  "script": "x",\n  "名称": "中文"\n}')
        expect(page.locator("[name='p.script']")).to_have_value("x")
        area.press("Control+z")
        expect(area).to_have_value(typed)


def test_dragging_over_the_scatter_picks_a_span(hub: Hub, visit: Visit) -> None:
    hub.make_job("drag", hub.script("end"))
    runs = [hub.run_job("drag") for _ in range(2)]
    with visit() as someone:
        page = someone.page
        for run_id in runs:
            someone.go(f"/admin/joblogs/details/{run_id}")
            someone.sees(someone.say("status.SUCCESS"), ".hub-head")
        someone.go("/admin/joblogs/list?job=drag&span=24h")
        box = page.locator(".hub-scatter").bounding_box()
        assert box
        y = box["y"] + 40
        page.mouse.move(box["x"] + 300, y)
        page.mouse.down()
        page.mouse.move(box["x"] + 400, y)
        page.mouse.move(box["x"] + 500, y)
        page.mouse.up()
        page.wait_for_url(re.compile(r"job=drag&from=[\dT%A-]+Z&to=[\dT%A-]+Z$"))
        someone.sees(someone.say("no_runs"))
