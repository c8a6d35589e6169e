"""What `connecthub check` finds on this machine: who may reach the admin, the data folder, its disk."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from connecthub.config import Settings
from connecthub.operations.finding import Finding, fault, ok, warning

_LITTLE, _TOO_LITTLE = 1 << 30, 100 << 20  # bytes


def machine_findings(settings: Settings) -> Iterator[Finding]:
    """The lines `server`, `data folder` and `disk`."""
    yield _server(settings)
    yield from _data_folder(settings)
    yield _disk(settings.data_dir)


def _server(settings: Settings) -> Finding:
    server = settings.server
    address = f"{server.host}:{server.port}"
    if server.allowed_hosts or _is_loopback(server.host):
        return ok("server", f"listens on {address}")
    return warning(
        "server",
        f"listens on {address} beyond this machine and believes any host name: set [server] allowed_hosts to "
        "the names that people call it by",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not _may_look(folder):
        yield fault(
            "data folder",
            f"{folder} lies in a folder that this user may not enter: run this as the user of the hub, or "
            "set [data] dir to another one",
        )
        return
    if not os.path.isdir(folder):
        yield warning(
            "data folder", f"{folder} is not there yet: the first start makes it (connecthub serve)"
        )
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield fault(
            "data folder",
            f"{folder} cannot be written by this user: sudo chown {os.geteuid()} {_quoted(folder)}",
        )
        return
    private = [folder, folder / "postgres", folder / "spool", folder / "admin-password"]
    private += [] if settings.log_dir is None else [settings.log_dir]
    open_ones = list(filter(_is_open, private))
    for path in open_ones:
        mode = "700" if path.is_dir() else "600"
        yield warning("data folder", f"{path} is open to other users: chmod {mode} {_quoted(path)}")
    if not open_ones:
        yield ok("data folder", f"{folder} is writable, and private")


def _may_look(path: Path) -> bool:
    """Whether this user can see if something is at `path`."""
    try:
        path.stat()
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def _is_open(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _disk(folder: Path) -> Finding:
    while not os.path.exists(folder):
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    left = f"{free / (1 << 30):.1f} GiB are free" if free >= _LITTLE else f"{free >> 20} MiB are free"
    if free >= _LITTLE:
        return ok("disk", f"{left} at {folder}")
    text = f"only {left} at {folder}: make room, or move [data] dir to a larger disk"
    return fault("disk", text) if free < _TOO_LITTLE else warning("disk", text)
