"""What every page has around it: drawing a page, the search box, the phone's More page, pause and resume."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from connecthub.storage.database import Database
from connecthub.storage.frame import job_exists, pause_outlook
from connecthub.storage.requests import set_paused
from connecthub.web.auth import HOME, actor, inside
from connecthub.web.display import link_to
from connecthub.web.fields import read_form
from connecthub.web.paths import segment


class Page(Protocol):
    """Draws a template in the frame, as an answer of `status`."""

    async def __call__(self, request: Request, name: str, status: int = 200, **context: Any) -> Response:
        """The answer."""


class FrameRoutes:
    """What the frame's own controls lead to."""

    def __init__(self, database: Database, page: Page) -> None:
        self._database, self._page = database, page

    def routes(self) -> Sequence[Route]:
        """To be guarded by roles.NEEDED, by name."""
        return [
            Route("/more", self.more, name="more"),
            Route("/keys", self.keys, name="keys"),
            Route("/search", self.search, name="search"),
            Route("/pause", self.pause, name="pause", methods=["GET", "POST"]),
            Route("/resume", self.resume, name="resume", methods=["POST"]),
        ]

    async def more(self, request: Request) -> Response:
        """What the phone's bottom bar has no room for."""
        return await self._page(request, "more.html")

    async def keys(self, request: Request) -> Response:
        """The keyboard shortcuts."""
        return await self._page(request, "keys.html")

    async def search(self, request: Request) -> Response:
        """`#18431` opens that run, an exact id that Job, anything else the list of Jobs."""
        text = request.query_params.get("q", "").strip()
        run = re.fullmatch(r"[#＃]([0-9]{1,19})", text)
        if run:
            return RedirectResponse(f"/admin/joblogs/details/{run[1]}", 303)
        if text and await job_exists(self._database, text):
            return RedirectResponse(f"/admin/jobs/details/{segment(text)}", 303)
        return RedirectResponse(link_to("/admin/jobs/list", q=text), 303)

    async def pause(self, request: Request) -> Response:
        """Says what a pause will do, and pauses all hubs."""
        if request.method != "POST":
            outlook = await pause_outlook(self._database)
            back = inside(request.query_params.get("next", ""))
            return await self._page(request, "pause.html", outlook=outlook, back=back)
        return await self._set_paused(request, paused=True)

    async def resume(self, request: Request) -> Response:
        """Let Jobs start again."""
        return await self._set_paused(request, paused=False)

    async def _set_paused(self, request: Request, *, paused: bool) -> Response:
        await set_paused(self._database, paused, actor=actor(request))
        form = await read_form(request)
        return RedirectResponse(inside(form.get("next", ""), HOME), 303)
