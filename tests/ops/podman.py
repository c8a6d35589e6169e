"""The image that podman builds from Containerfile on a base of debootstrap's, and containers of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.program import ROOT

# Kept between runs of the tests, outside of the project: what debootstrap loads takes longest.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "connecthub-ops"
_PACKAGES = "python3,python3-venv,ca-certificates"
# runc and the lower limits work inside of containers and virtual machines, too.
_CONFIG = """[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""
# Nothing that a hub does not need: no root, nothing writable but /data, no capabilities.
CLOSED = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--pids-limit", "512"),
)


def environ() -> dict[str, str]:
    """What podman runs with."""
    config = CACHE / "containers.conf"
    if not config.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        config.write_text(_CONFIG)
    return {**os.environ, "CONTAINERS_CONF": str(config)}


def podman(*words: str, timeout_s: float = 120) -> str:
    """What `podman WORDS` prints."""
    done = subprocess.run(
        ["podman", *words],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"podman {shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def log(container: str) -> str:
    """What a container has printed, its complaints too."""
    return subprocess.run(
        ["podman", "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout


def debian(name: str, packages: str) -> Path:
    """An archive of a minimal Debian with these packages; made once and kept in CACHE."""
    archive = CACHE / f"bookworm-{name}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        folder = CACHE / f"rootfs-{uuid.uuid4().hex[:8]}"
        run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(folder))
        part = archive.with_suffix(f".{folder.name}")
        run("tar", "-C", str(folder), "-cf", str(part), "--one-file-system", ".")
        part.rename(archive)
        run("rm", "-rf", str(folder))
    return archive


def base_image() -> str:
    """A minimal Debian with Python, as an image."""
    archive = debian("python", _PACKAGES)
    name = f"localhost/connecthub-base:{int(archive.stat().st_mtime)}"
    if name not in podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        podman("import", str(archive), name)
    return name


def build_image(folder: Path) -> str:
    """Build Containerfile on the base image, from a clean state; the image's name."""
    name = f"localhost/connecthub-test:{uuid.uuid4().hex[:8]}"
    mounts = [word for mount in pip_mounts(folder) for word in ("-v", mount)]
    podman(
        *("build", "-q", "--layers=false", "--format", "docker", "--network", "host"),
        *("--build-arg", f"BASE={base_image()}", *mounts, "-t", name, str(ROOT)),
        timeout_s=900,
    )
    return name


def pip_mounts(folder: Path) -> Iterator[str]:
    """How pip reaches its packages on this machine: as mounts, nothing of which gets into the image."""
    printed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in printed.splitlines():  # global ones come after those of the environment, which win
        name, _, value = line.partition("=")
        settings.setdefault(name.removeprefix(":env:.").split(".")[-1], value.strip("'\""))
    config = folder / "pip.conf"
    config.touch(0o600)
    config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    yield f"{config}:/etc/pip.conf:ro"
    places = {word.removeprefix("file://") for value in settings.values() for word in value.split()}
    folders = {Path(place) for place in places if place.startswith("/") and Path(place).exists()}
    for place in sorted(folders):
        # Links of a folder of packages may lead beside it.
        shown = place.parent if place.name == "simple" else place
        yield f"{shown}:{shown}:ro"
    cache = Path.home() / ".cache" / "pip"
    cache.mkdir(parents=True, exist_ok=True)
    yield f"{cache}:/root/.cache/pip"


def run(*argv: str) -> str:
    """What a program prints."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{shlex.join(argv)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


class Container:
    """A hub in a container of `image` on the host's network; its volume as /data outlives its starts."""

    def __init__(self, image: str, **environ: str) -> None:
        self.name = f"connecthub-{uuid.uuid4().hex[:8]}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        environ = {"CONNECTHUB_SERVER__PORT": str(self._port), **environ}
        settings = [word for name, value in environ.items() for word in ("-e", f"{name}={value}")]
        self._words = [
            *("--pull=never", "--network", "host", *CLOSED, "-v", f"{self.name}:/data", *settings, image)
        ]

    def __enter__(self) -> Container:
        podman("create", "--name", self.name, "--stop-timeout", "75", *self._words)
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self) -> None:
        """Start it, for the first time or again; returns when it answers."""
        podman("start", self.name)
        end = time.monotonic() + 60
        while not self._answers():
            assert self.state()["Running"] and time.monotonic() < end, f"it does not answer:\n{self.log()}"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> int:
        """End it as the manual says, with time for what runs; its exit status."""
        podman("stop", "-t", "75", self.name)
        return int(self.state()["ExitCode"])

    def state(self) -> dict[str, Any]:
        """What podman knows of it."""
        found: dict[str, Any] = json.loads(podman("inspect", self.name))[0]["State"]
        return found

    def log(self) -> str:
        """What it has printed."""
        return log(self.name)

    def execute(self, *argv: str) -> str:
        """What a command inside prints."""
        return podman("exec", self.name, *argv)

    def follow(self, lines: str, folder: Path, answer: str = "") -> str:
        """What lines of the manual print in `folder`, about this container, its volume and image."""
        lines = lines.replace("-v connecthub:/data connecthub", shlex.join(self._words))
        lines = re.sub(r"podman (exec|stop|start) connecthub\b", rf"podman \1 {self.name}", lines)
        done = subprocess.run(
            ["sh", "-ec", lines.replace(" -it ", " -i ")],  # there is no terminal
            cwd=folder, env=environ(), input=answer, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
        return done.stdout

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        podman("rm", "-f", "-t", "5", self.name)
        podman("volume", "rm", "-f", self.name)
