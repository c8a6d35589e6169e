"""The pictures of the README: `pytest tests/browser/test_readme.py --readme` writes them to docs/images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser import seed
from tests.browser.hubs import hub_in
from tests.browser.reader import Look, reader

ROOT = Path(__file__).parents[2]
LARGEST = 150_000  # bytes
READMES = {"en": "README.md", "zh": "README.zh-CN.md"}
PAGES = {"overview": "/admin/", "jobs": "/admin/jobs/list"}


def test_the_pictures_of_the_readme(
    chromium: Browser, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with hub_in(tmp_path) as hub:
        seed.firm(hub, seed.FIRM)
        script = hub.script("progress 1240/2000")
        hub.make_job("going", script, timezone="Asia/Shanghai", cron_expr="20 * * * *")
        hub.run_job("going")
        for language, readme in READMES.items():
            _name_jobs(hub, language)
            with reader(chromium, Look(language, 1280), hub.url) as someone:
                someone.page.set_viewport_size({"width": 1200, "height": 680})
                someone.sign_in("admin")
                for name, path in PAGES.items():
                    someone.go(path)
                    someone.sees(someone.say("status.RUNNING"))
                    picture = f"docs/images/{name}.{language}.png"
                    made = someone.page.screenshot(caret="initial")
                    assert len(made) < LARGEST, (picture, len(made))
                    if request.config.getoption("--readme"):
                        (ROOT / "docs/images").mkdir(exist_ok=True)
                        (ROOT / picture).write_bytes(made)
                    assert (ROOT / picture).is_file() and f"({picture})" in (ROOT / readme).read_text("utf-8")


def _name_jobs(hub: Any, language: str) -> None:
    names = {job_id: chinese if language == "zh" else english for job_id, chinese, english, *_ in seed.FIRM}
    names["going"] = "差旅报销单" if language == "zh" else "Travel expenses"
    for job_id, name in names.items():
        hub.sql("UPDATE jobs SET name = $2 WHERE id = $1", job_id, name)
