"""A real Chromium, and a page that remembers what went wrong in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

LOOPBACK = ("http://127.0.0.1:", "data:")


@dataclass
class Seen:
    """What a page must not have: errors of scripts or of the CSP, and requests that leave the machine."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Skipped by name where there is none; in CI that is a failure."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not here; .ci/run installs it")
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        # Without its sandbox, which root may not use; it only ever sees this machine.
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of an English reader at a desk; errors in it and requests to elsewhere fail the test."""
    seen = Seen()
    context = chromium.new_context(locale="en", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda line: seen.errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda one: seen.outside.append(one.url) if not one.url.startswith(LOOPBACK) else None)
    yield page
    context.close()
    assert seen == Seen()
