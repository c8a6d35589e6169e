"""The real program as a subprocess, and a browser's side of HTTP beside it."""

from __future__ import annotations

import asyncio
import html
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import asyncpg
import httpx

from connecthub.storage.embedded import EmbeddedPostgres

OWN_PASSWORD = "three words long"
ROOT = Path(__file__).parent.parent
# Before a command: keeps root, too, out of folders that are closed to it.
AS_OTHERS = (
    [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
)


class Program:
    """`python -m connecthub` with everything it writes below `folder`; used as a context manager.

    `lines` is what it printed so far; `url` is the address it printed.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.data = folder / "data"
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONNECTHUB_")},
            "CONNECTHUB_DATA__DIR": str(self.data),
            "CONNECTHUB_PLUGINS__PATH": str(ROOT),
            "CONNECTHUB_SERVER__PORT": "0",
            "PYTHONFAULTHANDLER": "1",
            **(environ or {}),
        }
        self.lines: list[str] = []
        self.url = ""
        self._folder = folder
        self._ready = threading.Event()

    def __enter__(self) -> Program:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "connecthub"],
            cwd=self._folder,
            env={**self._environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()
        if not self._ready.wait(60) or not self.url:
            self.__exit__(None, None, None)
            raise AssertionError("the program did not start:\n" + "".join(self.lines))
        return self

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self.lines.append(line)
            found = re.search(r"ConnectHub is at (http://\S+)/admin", line)
            if found:
                self.url = found[1]
            if self.url:
                self._ready.set()
        self._ready.set()

    def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Straight from its embedded PostgreSQL, whether the program runs or not."""

        async def ask() -> list[asyncpg.Record]:
            postgres = await EmbeddedPostgres.start(self.data)
            connection = await asyncpg.connect(postgres.dsn)
            try:
                return await connection.fetch(statement, *args)
            finally:
                await connection.close()
                await postgres.stop()

        return asyncio.run(ask())

    def command(self, *words: str) -> str:
        """What `connecthub WORDS` prints, on the same data folder."""
        done = self.run_command(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`connecthub WORDS` to its end, whatever comes of it."""
        return subprocess.run(
            [sys.executable, "-m", "connecthub", *words],
            cwd=self._folder,
            env={**self._environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def password(self) -> str:
        """The one that the hub made up."""
        return (self.data / "admin-password").read_text().strip()

    def stop(self) -> int:
        """End it as systemd does; its exit status. If it does not end, where each of its threads stands."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(90)
        except subprocess.TimeoutExpired:
            threads = _threads(self.process.pid)
            self.process.send_signal(signal.SIGABRT)  # all stacks are printed, whoever holds the interpreter
            self.process.wait(90)
            self._reader.join()
            raise AssertionError(
                "it did not end within 90 s of SIGTERM\n" + threads + "\n" + "".join(self.lines)
            ) from None
        self._reader.join()
        return status

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()


def _threads(pid: int) -> str:
    """Number, name, state and place in the kernel of each thread, as Linux tells them."""
    tasks = Path(f"/proc/{pid}/task").glob("*")
    told = [[(task / name).read_text().strip() for name in ("comm", "stat", "wchan")] for task in tasks]
    return "\n".join(f"{name} {stat.rpartition(')')[2].split()[0]} {place}" for name, stat, place in told)


class Person(httpx.Client):
    """Someone at a browser: posts forms from the hub's own pages, in English."""

    def __init__(self, url: str) -> None:
        headers = {"Origin": url, "Sec-Fetch-Site": "same-origin", "Accept-Language": "en"}
        super().__init__(base_url=url, headers=headers, timeout=30)

    def sign_in(self, password: str, username: str = "admin") -> None:
        """Raises AssertionError where that is refused. A made-up password becomes OWN_PASSWORD."""
        answer = self.post("/admin/login", data={"username": username, "password": password})
        assert answer.status_code in (302, 303), answer.text
        if answer.headers["location"] == "/admin/account/password":
            changed = {"current": password, "new": OWN_PASSWORD, "again": OWN_PASSWORD}
            assert self.post("/admin/account/password", data=changed).status_code == 303

    def fill(self, page: str, values: Mapping[str, str]) -> httpx.Response:
        """Post the form of `page` with `values` in the place of what stands in it."""
        shown = self.get(page)
        assert shown.status_code == 200, shown.text
        return self.post(page, data={**_fields(shown.text), **values})


def _fields(page: str) -> dict[str, str]:
    """What a browser would send of the page's inputs, text areas and selects, left as they are."""
    fields: dict[str, str] = {}
    for tag in re.findall(r"<input\b[^>]*>", page):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        kind = attributes.get("type", "text")
        name = attributes.get("name")
        if (
            not name
            or kind in ("submit", "file")
            or (kind in ("checkbox", "radio") and " checked" not in tag)
        ):
            continue
        fields[name] = html.unescape(attributes.get("value", "y" if kind == "checkbox" else ""))
    for name, text in re.findall(r'<textarea\b[^>]*\bname="([^"]+)"[^>]*>(.*?)</textarea>', page, re.S):
        fields[name] = html.unescape(text).removeprefix("\r\n").removeprefix("\n")
    for name, options in re.findall(r'<select\b[^>]*\bname="([^"]+)"[^>]*>(.*?)</select>', page, re.S):
        chosen = re.search(r'<option\b[^>]*\bselected\b[^>]*\bvalue="([^"]*)"', options) or re.search(
            r'<option\b[^>]*\bvalue="([^"]*)"[^>]*\bselected', options
        )
        fields[name] = html.unescape(chosen[1]) if chosen else ""
    return fields
