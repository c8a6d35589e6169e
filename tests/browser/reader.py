"""A person before a browser, and what must never go wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response, expect

from connecthub.words import say
from tests.program import OWN_PASSWORD

# Told as an error of the console, with what was blocked; a report of the CSP is one anyway.
_TELL_CSP = """addEventListener("securitypolicyviolation", (event) =>
  console.error("CSP", event.violatedDirective, event.blockedURI, event.sample));"""


@dataclass(frozen=True)
class Look:
    """How a page is looked at."""

    language: str  # en or zh
    width: int
    theme: Literal["light", "dark"] = "light"

    def __str__(self) -> str:
        return f"{self.language}-{self.width}{'-dark' * (self.theme == 'dark')}"

    @property
    def is_phone(self) -> bool:
        return self.width < 600

    def say(self, key: str, **values: object) -> str:
        """A text of the admin in this language."""
        return say(self.language, key, **values)

    def options(self) -> dict[str, Any]:
        """Of a new browser context."""
        return {
            "locale": {"en": "en-GB", "zh": "zh-CN"}[self.language],
            "timezone_id": "Asia/Shanghai",
            "color_scheme": self.theme,
            "viewport": {"width": self.width, "height": 844 if self.is_phone else 800},
            "has_touch": self.is_phone,
            "is_mobile": self.is_phone,
            "reduced_motion": "reduce",
        }


LOOKS = [Look("en", 1280), Look("zh", 390), Look("zh", 1280), Look("en", 390)]
DARK = [Look("en", 800, "dark"), Look("zh", 390, "dark")]  # a tablet's width is looked at here, too


@dataclass
class Seen:
    """Faults of a browser: errors of scripts or of the CSP, refused requests, requests that leave the hub."""

    origin: str
    faults: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)  # statuses of pages that a test asks for

    def watch(self, context: BrowserContext) -> None:
        """From now on, everything that happens in any page."""
        context.add_init_script(_TELL_CSP)
        context.on("console", lambda line: self._said(line.type, line.text))
        context.on("weberror", lambda error: self.faults.append(f"script: {error.error}"))
        context.on("request", lambda request: self._asked(request.url))
        context.on("response", self._answered)

    def _said(self, kind: str, text: str) -> None:
        # A refused request is told by its response.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource: the server resp"):
            self.faults.append(f"console {kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.origin}/", "data:", "about:")):
            self.faults.append(f"leaves the hub: {url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.faults.append(f"{response.status}: {response.request.method} {response.url}")


class Reader:
    """A page, the language of who looks at it, and what went wrong so far."""

    def __init__(self, page: Page, look: Look, url: str, seen: Seen) -> None:
        self.page, self.look, self.url, self.seen = page, look, url, seen
        self.say = look.say

    def go(self, path: str, status: int = 200) -> None:
        """Open a page that answers with `status`."""
        if status >= 400:
            self.seen.expected.add(status)
        answer = self.page.goto(f"{self.url}{path}")
        assert answer is not None and answer.status == status, (path, answer and answer.status)
        self.seen.expected.discard(status)

    def at(self, pattern: str) -> None:
        """Wait until the page of this address is shown; `**` stands for anything."""
        self.page.wait_for_url(f"{self.url}{pattern}")

    def button(self, key: str, **values: object) -> Locator:
        return self.page.get_by_role("button", name=self.say(key, **values), exact=True)

    def link(self, key: str, **values: object) -> Locator:
        return self.page.get_by_role("link", name=self.say(key, **values), exact=True)

    def type_in(self, **fields: str) -> None:
        """Fill fields by their names."""
        for name, text in fields.items():
            self.page.fill(f"[name='{name}']", text)

    def confirm(self, verb: str) -> None:
        """Press the button of this text in the dialog that has opened."""
        self.page.locator("dialog[open]").get_by_role("button", name=verb, exact=True).click()

    def sees(self, text: str, where: str = "main", timeout_s: float = 10) -> None:
        """Wait until `text` stands there."""
        expect(self.page.locator(where)).to_contain_text(text, timeout=timeout_s * 1000)

    def sign_in(self, username: str, password: str = OWN_PASSWORD) -> None:
        """Through the log-in page."""
        self.go("/admin/login")
        self.type_in(username=username, password=password)
        self.page.press("[name=password]", "Enter")
        self.page.wait_for_url(lambda url: not url.startswith(f"{self.url}/admin/login"))


@contextmanager
def reader(chromium: Browser, look: Look, url: str, state: Any = None) -> Iterator[Reader]:
    """A browser of its own at the hub of `url`; `state` is that of an earlier one. Ends without a fault."""
    seen = Seen(url)
    context = chromium.new_context(**look.options(), storage_state=state)
    context.set_default_timeout(15_000)
    try:
        seen.watch(context)
        yield Reader(context.new_page(), look, url, seen)
    finally:
        context.close()
    assert not seen.faults
