"""Which handlers are found in the allowed packages, and what a bad module does to the others."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from pathlib import Path

import pytest

from connecthub.plugins import discover
from connecthub.plugins.discover import Catalogue

GOOD = '''
from typing import Literal
from pydantic import BaseModel
from connecthub.plugins import BaseJob

class Shared(BaseJob):
    """Has no run: a base of others."""

class GoodJob(Shared):
    """Copies things.

    Every day.
    """
    class Params(BaseModel):
        kind: Literal["a", "b"] = "a"
        dry_run: bool = False

    def run(self, params, secrets):
        return {}

class PlainJob(GoodJob):
    Params = None

class _Hidden(GoodJob):
    pass
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "__init__": "",
        "good": GOOD,
        "uses": "from found_jobs.good import GoodJob\nVALUE = 1\n",
        "plain": "raise SystemError('nobody imports what holds no class')\n",
        "broken": "class A(int): pass\nimport not_there_at_all\n",
        "syntax": "class A(int:\n",
        "ends": "import os\nclass A(int): pass\nos._exit(3)\n",
    }.items():
        file = tmp_path / "found_jobs" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_handlers_are_found_and_bad_modules_named(folder: Path) -> None:
    found = asyncio.run(Catalogue(("found_jobs", "not_there"), folder).found())
    assert [one.path for one in found.handlers] == ["found_jobs.good:GoodJob", "found_jobs.good:PlainJob"]
    good, plain = found.handlers
    assert good.doc == "Copies things.\n\nEvery day." and good.has_dry_run
    assert good.params is not None and set(good.params["properties"]) == {"kind", "dry_run"}
    assert (plain.doc, plain.params, plain.has_dry_run) == ("", None, False)
    assert found.get("found_jobs.good.GoodJob") is good and found.get("found_jobs.good:Other") is None
    broken = {one.module: one.error for one in found.broken}
    assert set(broken) == {"found_jobs.broken", "found_jobs.syntax", "found_jobs.ends"}
    assert "not_there_at_all" in broken["found_jobs.broken"]
    assert "line 1" in broken["found_jobs.syntax"] and "exit status 3" in broken["found_jobs.ends"]
    assert not any(name.startswith("found_jobs") for name in sys.modules), "nothing is imported in the hub"


def test_a_module_that_hangs_costs_only_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    asyncio.run(Catalogue(("found_jobs",), folder).found())
    monkeypatch.setattr(discover, "_MODULE_S", max(1.5, 3 * (time.monotonic() - begun)))
    (folder / "found_jobs" / "a_first.py").write_text("import time\nclass A(int): pass\ntime.sleep(99)\n")
    found = asyncio.run(Catalogue(("found_jobs",), folder).found())
    assert len(found.handlers) == 2
    assert "did not finish" in {one.module: one.error for one in found.broken}["found_jobs.a_first"]


def test_without_a_process_the_handlers_of_before_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: object, **__: object) -> object:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def look() -> None:
        catalogue = Catalogue(("found_jobs",), folder)
        first = await catalogue.found()
        (folder / "found_jobs" / "good.py").write_text(GOOD + "\nclass MoreJob(GoodJob): pass\n")
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "create_subprocess_exec", none)
            meanwhile = await catalogue.found()
        assert meanwhile.handlers == first.handlers
        (broken,) = meanwhile.broken
        assert broken.module == "found_jobs" and "(Resource temporarily unavailable)" in broken.error
        after = await catalogue.found()
        assert after.get("found_jobs.good:MoreJob") and after.broken == first.broken

    asyncio.run(look())


def test_files_are_looked_at_again_only_when_one_changed(folder: Path) -> None:
    async def look() -> None:
        catalogue = Catalogue(("found_jobs",), folder)
        first = await catalogue.found()
        assert await catalogue.found() is first
        (folder / "found_jobs" / "good.py").write_text(GOOD + "\nclass MoreJob(GoodJob): pass\n")
        assert (await catalogue.found()).get("found_jobs.good:MoreJob")

    asyncio.run(look())
