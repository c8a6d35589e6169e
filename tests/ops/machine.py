"""A small machine with systemd, in systemd-nspawn, on which the hub is installed as docs/install.md says."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.ops.podman import debian, pip_mounts, run
from tests.program import ROOT

_PACKAGES = "python3,python3-venv,ca-certificates,systemd-sysv,dbus"
# nspawn wants to tell the machine's own systemd, which may not be there.
_BOOT = """mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd
exec systemd-nspawn -q -D "$0" --register=no --keep-unit --console=read-only --boot"""
_INSTALL = """cd /opt/connecthub
useradd --system --home-dir /var/lib/connecthub --shell /usr/sbin/nologin connecthub
python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[embedded]'
cp connecthub.service /etc/systemd/system/ && systemctl enable -q connecthub
"""


class Machine:
    """Shares the network of this one. `config` becomes /etc/connecthub/config.toml, for root's eyes only."""

    def __init__(self, folder: Path, url: str, config: str) -> None:
        self._root = folder / "root"
        self._url = url
        self._root.mkdir()
        run("tar", "-C", str(self._root), "-xf", str(debian("systemd", _PACKAGES)))
        self._copy_project()
        etc = self._root / "etc" / "connecthub"
        etc.mkdir(0o700)
        (etc / "config.toml").touch(0o600)
        (etc / "config.toml").write_text(config)
        mounts = []
        for mount in pip_mounts(folder):
            place, _, mode = mount.rpartition(":") if mount.endswith(":ro") else (mount, "", "")
            mounts.append(f"--bind{'-ro' if mode else ''}={place}")
        run(*("systemd-nspawn", "-q", "-D", str(self._root), "--register=no", "--keep-unit", "--as-pid2"),
            *mounts, "sh", "-ec", _INSTALL)  # fmt: skip

    def _copy_project(self) -> None:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        there = b"\0".join(name for name in listed.split(b"\0") if name and (ROOT / name.decode()).exists())
        archive = subprocess.run(
            ["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=there, capture_output=True, check=True
        )
        program = self._root / "opt" / "connecthub"
        program.mkdir()
        subprocess.run(["tar", "-x"], cwd=program, input=archive.stdout, check=True)

    def __enter__(self) -> Machine:
        self._nspawn = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", _BOOT, str(self._root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._init = ""
        try:
            self._init = self.until(self._booted)
            self.until(self.answers)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _booted(self) -> str:
        """The id of its systemd, once that is there: other children come before it and go."""
        for pid in Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
        return ""

    def answers(self) -> bool:
        """Whether the hub does."""
        try:
            return httpx.get(f"{self._url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def until(self, look: Callable[[], Any], seconds: float = 120) -> Any:
        """What `look` returns, as soon as that is something."""
        end = time.monotonic() + seconds
        while not (found := look()):
            assert self._nspawn.poll() is None and time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.2)
        return found

    def run(self, *argv: str) -> str:
        """What a command on the machine prints."""
        return run("nsenter", "-t", self._init, "-a", *argv)

    def unit(self, name: str) -> str:
        """A property of connecthub.service."""
        return self.run("systemctl", "show", "connecthub", "-p", name, "--value").strip()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._init:
                print(self.run("journalctl", "-u", "connecthub", "--no-pager", "-n", "50"))
        finally:
            if self._init:
                self.run("systemctl", "poweroff")
            else:
                self._nspawn.terminate()
            self._nspawn.wait(150)
