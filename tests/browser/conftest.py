"""One real Chromium for all, one hub for those who share it, and people before them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, StorageState, sync_playwright

from tests.browser.hubs import ROLES, Hub, hub_in
from tests.browser.reader import LOOKS, Look, Reader, reader

Visit = Callable[..., AbstractContextManager[Reader]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Skipped by name where there is none; in CI that is a failure."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not here; .ci/run installs it")
        pytest.skip("needs chromium")
    # Without its sandbox, which root may not use: it only ever sees this machine, and cannot name another.
    options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=options)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/browser/test_readme.py --readme` keeps the pictures of the README."""
    parser.addoption("--readme", action="store_true", help="write the pictures of the README to docs/images")


@pytest.fixture(params=LOOKS[:2], ids=str)
def look(request: pytest.FixtureRequest) -> Look:
    """Both languages, one at a desk and one on a phone."""
    found: Look = request.param
    return found


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The hub that tests share; each makes its own Jobs."""
    with hub_in(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="session")
def signed_in(chromium: Browser, hub: Hub) -> dict[str, StorageState]:
    """The cookies of one session per role."""
    states = {}
    for role, username in ROLES.items():
        with reader(chromium, LOOKS[0], hub.url) as someone:
            someone.sign_in(username)
            states[role] = someone.page.context.storage_state()
    return states


@pytest.fixture
def visit(chromium: Browser, hub: Hub, look: Look, signed_in: dict[str, Any]) -> Visit:
    """`with visit("viewer") as someone`: a browser of somebody with that role."""

    @contextmanager
    def opened(role: str = "admin", look: Look = look) -> Iterator[Reader]:
        with reader(chromium, look, hub.url, signed_in[role]) as someone:
            yield someone

    return opened


@pytest.fixture
def admin(visit: Visit) -> Iterator[Reader]:
    """A browser of the administrator."""
    with visit() as someone:
        yield someone
