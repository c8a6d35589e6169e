"""A process that was told to end does end, whatever holds its interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HELD = """
import asyncio, os, re, signal, sys
from connecthub import ending

if sys.argv[1] == "ignored":
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
ending._OVERTIME_S = 1.0

async def main():
    ending.on_signals(asyncio.Event(), 0)
    os.kill(os.getpid(), signal.SIGTERM)
    re.match("(a+)+b", "a" * 64)  # in C, until long after this test

asyncio.run(main())
"""


@pytest.mark.parametrize("alarm", ["delivered", "ignored"])
def test_it_ends_although_its_interpreter_is_held(alarm: str) -> None:
    """As process 1 of a container, too: the kernel ignores what that has no handler for."""
    done = subprocess.run(
        [sys.executable, "-c", HELD, alarm], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1 and "in main" in done.stderr, done.stderr
