"""What a service manager hears from the hub; and connecthub.service, as systemd reads it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from connecthub import systemd
from connecthub.config_sections import PoolSettings
from tests.program import ROOT, Program

_PATIENCE_S = 30


class Manager:
    """The end of the socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(_PATIENCE_S)
        self.address = address

    def hear(self) -> str:
        return self._socket.recv(1000).decode()

    def hear_until(self, word: str) -> list[str]:
        heard = [self.hear()]
        while heard[-1] != word:
            heard.append(self.hear())
        return heard

    def forget(self) -> None:
        """What was told so far does not count."""
        self._socket.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                self.hear()
        self._socket.settimeout(_PATIENCE_S)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "a path" else f"@connecthub-{os.getpid()}")
    yield manager
    manager.close()


def test_ready_comes_when_pages_answer_and_the_watchdog_is_fed_until_it_stops(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    environ |= {"CONNECTHUB_POOL__SHUTDOWN_GRACE_S": "300"}
    with Program(tmp_path / "hub", environ) as program:
        assert manager.hear() == "READY=1"
        assert [manager.hear() for _ in range(3)] == ["WATCHDOG=1"] * 3
        assert program.stop() == 0
        assert set(manager.hear_until("STOPPING=1")[:-1]) <= {"WATCHDOG=1"}
        assert manager.hear() == "EXTEND_TIMEOUT_USEC=330000000", (
            "the grace, and what the unit leaves beyond it"
        )
    manager.close()


def test_what_stands_still_is_not_fed(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    still: list[str] = []
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())}

    async def act() -> None:
        async with systemd.told(lambda: still[0] if still else None, 60, environ):
            assert await asyncio.to_thread(manager.hear_until, "WATCHDOG=1") == ["READY=1", "WATCHDOG=1"]
            still.append("the tick has stood still for 181 s")
            manager.forget()
            await asyncio.sleep(0.2)  # twenty times as long as between two feeds

    asyncio.run(act())
    assert manager.hear_until("STOPPING=1") == ["STOPPING=1"]
    assert caplog.messages == ["the tick has stood still for 181 s: systemd will start the hub again"]
    assert not environ, "what a plugin starts must not speak for the hub"


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": "", "WATCHDOG_PID": "1"}],
    ids=["nothing", "no socket", "an empty socket"],
)
def test_without_a_manager_nothing_is_told(environ: dict[str, str]) -> None:
    async def act() -> None:
        async with systemd.told(lambda: None, 60, dict(environ)):
            pass

    asyncio.run(act())


def unit(folder: Path) -> Path:
    """connecthub.service for a program that is in `folder`: systemd wants to see it."""
    program = folder / "opt" / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    path = folder / "connecthub.service"
    text = (ROOT / "connecthub.service").read_text()
    assert "/opt/connecthub/" in text
    path.write_text(text.replace("/opt/connecthub", str(folder / "opt")))
    return path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs systemd-analyze (package systemd)")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    done = analyze("verify", str(unit(tmp_path)))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_is_closed(tmp_path: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(unit(tmp_path)))
    found = re.search(r"Overall exposure level for connecthub.service: ([0-9.]+)", done.stdout)
    assert found and float(found[1]) <= 1.5, done.stdout + done.stderr


def test_the_unit_is_not_started_again_with_wrong_settings() -> None:
    assert (systemd.status_of_wrong_settings({"NOTIFY_SOCKET": "/run/x"}), os.EX_CONFIG) == (78, 78)
    assert systemd.status_of_wrong_settings({}) == 2
    found = re.search(r"^RestartPreventExitStatus=(.+)$", (ROOT / "connecthub.service").read_text(), re.M)
    assert found and "CONFIG" in found[1].split(), "systemd's own name of 78"


def test_the_unit_leaves_time_for_what_a_stop_may_take() -> None:
    """The grace, what a shutdown takes beyond it, and the end of the embedded PostgreSQL."""
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", (ROOT / "connecthub.service").read_text(), re.M)
    assert seconds and int(seconds[1]) == PoolSettings().shutdown_grace_s + systemd._BEYOND_GRACE_S
