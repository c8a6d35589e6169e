"""A hub for development: it drains and starts again when a file of its code or of its plugins changes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

from connecthub.config import Settings
from connecthub.errors import ConfigError


def run(settings: Settings, command: list[str]) -> int:
    """Run `command` until SIGINT or SIGTERM, again after each change; its last exit status.

    The first signal drains it as it drains a hub, the second ends it at once. A hub that ended by itself, a
    mistake in the settings say, is started again at the next change.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ConfigError(
            "connecthub dev needs watchfiles; install it: pip install -c constraints.txt -e '.[dev]'"
        ) from None
    stop = threading.Event()
    hub = _Child(command)

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            hub.kill()
        else:
            _say("the hub drains and ends; a second signal ends it at once")
        stop.set()
        hub.drain()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    folders = _folders(settings)
    _say(f"watching {', '.join(map(str, folders))}")
    hub.start()
    for changes in watch(*folders, watch_filter=PythonFilter(), stop_event=stop, raise_interrupt=False):
        names = sorted({Path(file).name for _, file in changes})
        _say(f"{', '.join(names[:5])} changed: the hub drains and starts again")
        hub.drain()
        hub.wait()
        if not stop.is_set():
            hub.start()
    hub.drain()  # the signal may have come while it was started
    return hub.wait()


def _folders(settings: Settings) -> list[Path]:
    """The hub's own code, and those of the plugin packages that are there."""
    plugins = [settings.plugin_path.joinpath(*package.split(".")) for package in settings.plugins.packages]
    return [Path(__file__).parent, *(folder for folder in plugins if folder.is_dir())]


class _Child:
    """The hub's process; its command ends with its standard input."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._drained: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # A session of its own: Ctrl-C is for this process. Should this one be killed, the pipe ends.
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            self._command,
            env={"CONNECTHUB_LOGS__RUNS": "true", **os.environ},  # what a developer looks for
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def drain(self) -> None:
        """Ask it to end, once: a hub that is asked again ends at once, whatever runs."""
        if self._process is not None and self._process is not self._drained:
            self._drained = self._process
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def wait(self) -> int:
        return self._process.wait() if self._process is not None else 0


def _say(text: str) -> None:
    os.write(2, f"dev: {text}\n".encode())  # a signal may come while something else is printed
