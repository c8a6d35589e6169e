"""Handlers, loaded and looked at: real modules, good and hostile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from connecthub.errors import HandlerError
from connecthub.plugins import BaseJob
from connecthub.plugins.inspect import HandlerReport, inspect_handler
from connecthub.plugins.loader import Loader

GOOD = """
    from connecthub.plugins import BaseJob

    class Good(BaseJob):
        '''Says hello.

        And more.'''
        def run(self, params, secrets):
            return {"hello": 1}
"""
CANARY = "cAnArY-5e1f-Zq"


class Folder:
    """A folder with one package of a name that no other test uses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.package = f"ext_{uuid.uuid4().hex}"
        self.write("__init__", "")

    def write(self, module: str, source: str) -> str:
        """Write a module (a dotted name below the package) and return its full name."""
        file = self.path.joinpath(self.package, *module.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source), "utf-8")
        return f"{self.package}.{module}"

    def loader(self) -> Loader:
        return Loader((self.package,), self.path)

    def refusal(self, handler_path: str) -> str:
        """The one line with which the loader refuses."""
        with pytest.raises(HandlerError) as refused:
            self.loader().load(handler_path)
        message = str(refused.value)
        assert "\n" not in message
        assert handler_path in message
        return message

    def look(self, handler_path: str, **options: Any) -> HandlerReport:
        return asyncio.run(
            inspect_handler(handler_path, packages=(self.package,), path=self.path, **options),
        )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "plug ins")
    before = list(sys.path)
    yield made
    sys.path[:] = before
    for name in [name for name in sys.modules if name.split(".")[0] == made.package]:
        del sys.modules[name]


# --- the loader -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [":", "."])
def test_loads_both_forms_and_keeps_the_class(folder: Folder, separator: str) -> None:
    handler_path = folder.write("deep.job", GOOD) + separator + "Good"
    loader = folder.loader()
    assert loader.cached(handler_path) is None
    cls = loader.load(handler_path)
    assert issubclass(cls, BaseJob)
    assert cls().run({}, {}) == {"hello": 1}
    folder.write("deep.job", "raise RuntimeError")
    assert loader.load(handler_path) is cls
    assert loader.cached(handler_path) is cls


def test_the_folder_joins_sys_path_once_and_in_front(folder: Folder) -> None:
    folder.loader()
    folder.loader()
    assert sys.path[0] == str(folder.path)
    assert sys.path.count(str(folder.path)) == 1


def test_a_class_in_the_package_itself_and_a_reexported_one(folder: Folder) -> None:
    folder.write("job", GOOD)
    folder.write("__init__", "from .job import Good")
    folder.write("again", "from .job import Good as Better")
    loader = folder.loader()
    assert loader.load(f"{folder.package}:Good") is loader.load(f"{folder.package}.again:Better")


@pytest.mark.parametrize(
    "handler_path",
    [
        *("", ":", ".", "Good", ":Good", "{p}.job:", "{p}..job:Good", "{p}.job:Good:Good", "{p}.job:Good.x"),
        *(
            "{p}.job:Good()",
            " {p}.job:Good",
            "{p}.job:Good\n",
            "{p}/job:Good",
            ".{p}.job:Good",
            "../job:Good",
        ),
    ],
)
def test_a_malformed_path_is_refused(folder: Folder, handler_path: str) -> None:
    folder.write("job", GOOD)
    with pytest.raises(HandlerError, match="is no handler path: write ") as refused:
        folder.loader().load(handler_path.format(p=folder.package))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("outside", ["{p}_evil.job", "{p}x", "evil.{p}.job", "other.job"])
def test_nothing_outside_the_packages_is_imported(folder: Folder, outside: str) -> None:
    module = outside.format(p=folder.package)
    proof = folder.path / "imported"
    file = folder.path.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"open({str(proof)!r}, 'w').close()\n" + textwrap.dedent(GOOD), "utf-8")
    message = folder.refusal(f"{module}:Good")
    assert f"{module} is outside the allowed packages {folder.package}; " in message
    assert folder.refusal("os:system").startswith("os:system: os is outside the allowed packages")
    assert not proof.exists()


def test_a_package_may_be_a_dotted_one(folder: Folder) -> None:
    folder.write("inner.job", GOOD)
    folder.write("other", GOOD)
    loader = Loader((f"{folder.package}.inner",), folder.path)
    assert loader.load(f"{folder.package}.inner.job:Good")
    with pytest.raises(HandlerError, match="outside the allowed packages"):
        loader.load(f"{folder.package}.other:Good")


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        (GOOD, "Bad", "has no class Bad"),
        ("import os", "os", "os in {m} is a module, no class"),
        ("from os import system", "system", "system in {m} is a builtin_function_or_method, no class"),
        ("def job(params, secrets): pass", "job", "job in {m} is a function, no class"),
        ("class Plain: pass", "Plain", "Plain in {m} is no BaseJob"),
        (
            "from connecthub.plugins import BaseJob",
            "BaseJob",
            "BaseJob in {m} does not implement run; write run(self, ",
        ),
        (GOOD + "\n    class Bad(Good): run = None", "Bad", "Bad in {m} does not implement run"),
        (
            GOOD
            + "\n    import abc\n    class Bad(Good):\n        @abc.abstractmethod\n        def x(self): ...",
            "Bad",
            "Bad in {m} does not implement x",
        ),
        ("def __getattr__(name): raise SystemExit(1)", "Bad", "failed: SystemExit: 1 ({f} line 1)"),
    ],
)
def test_what_is_no_job_class_is_refused(folder: Folder, source: str, name: str, said: str) -> None:
    module = folder.write("job", source)
    expected = said.format(m=module, f=f"{folder.package}/job.py")
    assert expected in folder.refusal(f"{module}:{name}")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys\nsys.exit(3)", "SystemExit: 3 ({f} line 2)"),
        ("\nraise KeyboardInterrupt", "KeyboardInterrupt ({f} line 2)"),
        ("import asyncio\nraise asyncio.CancelledError('x')", "CancelledError: x ({f} line 2)"),
        ("import no_such_thing_42", "ModuleNotFoundError: No module named 'no_such_thing_42' ({f} line 1)"),
        ("import os\nfrom os import nope", "ImportError: cannot import name 'nope' from 'os'"),
        ("x = 1\ndef f(:\n  pass", "SyntaxError: invalid syntax ({f} line 2)"),
        ("raise ValueError('a\\nb' + 'c' * 9000)", "ValueError: a b" + "c" * 200),
        (
            "class E(Exception):\n  def __str__(s): 1/0\nraise E",
            "E: (its message cannot be read) ({f} line 3)",
        ),
    ],
)
def test_a_failing_import_says_what_and_where(folder: Folder, source: str, said: str) -> None:
    module = folder.write("job", source)
    message = folder.refusal(f"{module}:Good")
    assert f"importing {module} failed: " in message
    assert said.format(f=f"{folder.package}/job.py") in message
    assert len(message) < 800


def test_a_missing_module_is_named(folder: Folder) -> None:
    assert f"there is no module {folder.package}.nope in " in folder.refusal(
        f"{folder.package}.nope.job:Good"
    )
    folder.write("job", GOOD)
    assert f"there is no module {folder.package}.job.Good " in folder.refusal(
        f"{folder.package}.job.Good.Good"
    )


@pytest.mark.parametrize("broken", ["raise ValueError(1)", "def f(:", "class Good: pass", "Other = 1"])
def test_a_fixed_file_loads_the_next_time(folder: Folder, broken: str) -> None:
    loader = folder.loader()
    handler_path = f"{folder.package}.job:Good"
    with pytest.raises(HandlerError, match="there is no module"):
        loader.load(handler_path)
    listed = (folder.path / folder.package).stat()
    folder.write("job", broken)
    os.utime(folder.path / folder.package, ns=(listed.st_atime_ns, listed.st_mtime_ns))  # a coarse clock
    with pytest.raises(HandlerError):
        loader.load(handler_path)
    folder.write("job", GOOD)
    assert loader.load(handler_path).__name__ == "Good"


@pytest.mark.parametrize("line", ["from . import helper; helper.x", "from .helper import x"])
@pytest.mark.parametrize("package_stays", [True, False])
def test_a_fixed_helper_module_is_read_again(folder: Folder, line: str, package_stays: bool) -> None:
    loader = folder.loader()
    if package_stays:
        loader.load(folder.write("other", GOOD) + ":Good")
    folder.write("helper", "")
    folder.write("job", f"{line}\n" + textwrap.dedent(GOOD))
    with pytest.raises(HandlerError):
        loader.load(f"{folder.package}.job:Good")
    folder.write("helper", "x = 1")
    assert loader.load(f"{folder.package}.job:Good")


def test_a_class_added_to_a_loaded_module_is_found(folder: Folder) -> None:
    loader = folder.loader()
    module = folder.write("job", GOOD)
    good = loader.load(f"{module}:Good")
    with pytest.raises(HandlerError, match="has no class Late"):
        loader.load(f"{module}:Late")
    folder.write("job", GOOD + "\n    class Late(Good): pass")
    assert loader.load(f"{module}:Late").__name__ == "Late"
    assert loader.load(f"{module}:Good") is good


def test_a_failure_leaves_what_others_loaded(folder: Folder) -> None:
    loader = folder.loader()
    folder.write("shared", "")
    source = f"import {folder.package}.shared\n" + textwrap.dedent(GOOD)
    good = loader.load(folder.write("good", source) + ":Good")
    shared = sys.modules[f"{folder.package}.shared"]
    with pytest.raises(HandlerError):
        loader.load(folder.write("bad", f"import {folder.package}.shared\n1/0") + ":Good")
    assert sys.modules[f"{folder.package}.shared"] is shared
    assert sys.modules[folder.package].shared is shared
    assert sys.modules[good.__module__].Good is good


def loading(loader: Loader, module: str) -> tuple[threading.Thread, list[Any]]:
    """A thread that loads the class `Good` of a module, and what came of that."""
    found: list[Any] = []

    def load() -> None:
        try:
            found.append(loader.load(f"{module}:Good"))
        except HandlerError as error:
            found.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread, found


def waiting_for(signal_file: Path) -> str:
    return f"import os, time\nwhile not os.path.exists({str(signal_file)!r}): time.sleep(0.01)\n"


def until_begun(module: str) -> None:
    """Return once a thread is at the import of `module`."""
    deadline = time.monotonic() + 10
    while module not in sys.modules:
        assert time.monotonic() < deadline, f"nobody imports {module}"
        time.sleep(0.01)


def test_threads_load_at_once_and_a_blocked_import_holds_up_nobody(folder: Folder) -> None:
    loader = folder.loader()
    go = folder.path / "go"
    slow = folder.write("slow", waiting_for(go) + textwrap.dedent(GOOD))
    folder.write("job", GOOD)
    loads = [loading(loader, slow) for _ in range(8)]
    try:
        until_begun(slow)
        assert loader.load(f"{folder.package}.job:Good")
        with pytest.raises(HandlerError):  # its package must survive, the import under way needs it
            loader.load(folder.write("bad", "1/0") + ":Good")
        assert all(found == [] for _, found in loads)
    finally:
        go.touch()
    for thread, _ in loads:
        thread.join(10)
    [job_class] = {one for _, found in loads for one in found}
    assert [found for _, found in loads] == [[job_class]] * 8 and isinstance(job_class, type)


def test_first_loads_at_the_same_moment_do_not_hinder_each_other(folder: Folder) -> None:
    """What Python knows of folders that are gone is dropped before each; here it has much to drop."""
    loader = folder.loader()
    handler = f"{folder.write('job', GOOD)}:Good"
    sys.path_importer_cache.update((str(folder.path / f"gone-{number}"), None) for number in range(3000))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(loader.load, [handler] * 6))) == 1
    finally:
        sys.setswitchinterval(before)


def test_two_modules_that_their_package_imports_load_at_once(folder: Folder) -> None:
    loader = folder.loader()
    go = folder.path / "go"
    inner = folder.path / folder.package / "inner"
    inner.mkdir(parents=True)
    (inner / "__init__.py").write_text("from .a import Good as A\nfrom .b import Good as B\n")
    (inner / "client.py").touch()
    good = "from . import client\n" + textwrap.dedent(GOOD)
    (inner / "a.py").write_text(waiting_for(go) + good)
    (inner / "b.py").write_text(good)
    name = f"{folder.package}.inner"
    first, of_first = loading(loader, f"{name}.a")
    until_begun(f"{name}.a")
    second, of_second = loading(loader, f"{name}.b")
    while not waits_for_an_import(second):
        time.sleep(0.01)
    go.touch()
    first.join(10)
    second.join(10)
    assert [isinstance(one, type) for one in (*of_first, *of_second)] == [True, True], (of_first, of_second)


def waits_for_an_import(thread: threading.Thread) -> bool:
    """Whether it stands at the lock of a module."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and "importlib" in frame.f_code.co_filename and frame.f_code.co_name == "acquire"


def test_a_failure_leaves_what_a_load_at_the_same_time_has_ended_with(folder: Folder) -> None:
    loader = folder.loader()
    go = folder.path / "go"
    shared = folder.write("shared", "WORD = 1")
    bad = folder.write("bad", f"import {shared}\n{waiting_for(go)}1/0")
    uses = textwrap.dedent(GOOD).replace('{"hello": 1}', f"{shared}.WORD")
    good = folder.write("good", f"import {shared}\n{uses}")
    fail_beside(loader, bad, good, go)
    assert loader.load(f"{good}:Good")().run({}, {}) == 1


def test_what_failed_beside_another_load_is_read_again_once_it_is_corrected(folder: Folder) -> None:
    loader = folder.loader()
    go = folder.path / "go"
    folder.write("helper", "WORD = 1")
    folder.write("shared", "")
    use = f"from . import helper\nfrom . import shared\n{waiting_for(go)}"
    bad = folder.write("bad", use + "assert helper.WORD == 2\n" + textwrap.dedent(GOOD))
    good = folder.write("good", GOOD)
    fail_beside(loader, bad, good, go)
    assert "AssertionError" in refusal_of(loader, bad)  # and again, with nobody beside it
    folder.write("helper", "WORD = 1 + 1")
    assert loader.load(f"{bad}:Good")


def fail_beside(loader: Loader, bad: str, good: str, go: Path) -> None:
    """`bad` begins to load, `good` does meanwhile, and `bad`, which waits for the file `go`, fails."""
    failing, of_failing = loading(loader, bad)
    until_begun(bad)
    loading(loader, good)[0].join(10)
    go.touch()
    failing.join(10)
    assert isinstance(of_failing[0], HandlerError)


def refusal_of(loader: Loader, module: str) -> str:
    with pytest.raises(HandlerError) as refused:
        loader.load(f"{module}:Good")
    return str(refused.value)


def test_a_package_stays_while_an_import_below_it_is_under_way(folder: Folder) -> None:
    loader = folder.loader()
    fail, go = folder.path / "fail", folder.path / "go"
    bad = folder.write("bad", waiting_for(fail) + "1/0")
    slow = folder.write("slow", waiting_for(go) + textwrap.dedent(GOOD))
    loads = []
    for module in (bad, slow):  # so it is the failing one that brings in the package
        loads.append(loading(loader, module))
        until_begun(module)
    for (thread, _), signal_file in zip(loads, (fail, go), strict=True):
        signal_file.touch()
        thread.join(10)
    [[failed], [loaded]] = (found for _, found in loads)
    assert isinstance(failed, HandlerError)
    assert isinstance(loaded, type), loaded


# --- looking at it in a child process ---------------------------------------------------------------------


def test_looking_reports_the_first_line_of_the_docstring_and_imports_nothing_here(folder: Folder) -> None:
    module = folder.write("job", GOOD + "\n    class Bare(Good): pass")
    started = time.monotonic()
    assert folder.look(f"{module}:Good") == HandlerReport(None, "Says hello.")
    assert time.monotonic() - started < 3  # far below on a quiet machine
    assert folder.look(f"{module}:Bare", public_cfg={"x": 1}, secret_cfg={"y": 1}) == HandlerReport(None, "")
    assert module not in sys.modules
    assert str(folder.path) not in sys.path


def test_looking_reports_what_the_loader_says(folder: Folder) -> None:
    module = folder.write("job", "import sys\nsys.exit('bye')")
    assert folder.look(f"{module}:Good").error == folder.refusal(f"{module}:Good")


def test_prints_do_not_disturb_the_answer(folder: Folder) -> None:
    noise = "import os, sys\nprint('{}' * 99999)\nos.write(1, b'x\\n')\nsys.stderr.write('y' * 99999)\n"
    noise += "print(sys.stdin.read())\n"
    module = folder.write("job", noise + textwrap.dedent(GOOD))
    assert folder.look(f"{module}:Good") == HandlerReport(None, "Says hello.")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os\nos._exit(0)", "ended (exit status 0) without an answer"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "ended (signal 9) without an answer"),
        # A forked process keeps the answer's socket open: the end must be seen all the same.
        (
            "import os, time\nif os.fork(): os._exit(4)\ntime.sleep(60)",
            "ended (exit status 4) without an answer",
        ),
    ],
)
def test_a_module_that_ends_the_process(folder: Folder, source: str, said: str) -> None:
    module = folder.write("job", source)
    started = time.monotonic()
    error = folder.look(f"{module}:Good").error
    assert error is not None
    assert said in error
    assert time.monotonic() - started < 8


def test_threads_and_exit_handlers_of_a_module_are_not_waited_for(folder: Folder) -> None:
    noise = "import atexit, threading, time\natexit.register(time.sleep, 60)\n"
    noise += "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    module = folder.write("job", noise + textwrap.dedent(GOOD))
    started = time.monotonic()
    assert folder.look(f"{module}:Good").error is None
    assert time.monotonic() - started < 8


def spinning(folder: Folder) -> tuple[str, Path]:
    """A module that never finishes, with a process of its own, and the file that names both processes."""
    pids = folder.path / "pids"
    source = f"""
        import os, signal, subprocess, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        with open({str(pids) + ".new"!r}, "w") as file:
            file.write(f"{{os.getpid()}} {{child.pid}}")
        os.rename({str(pids) + ".new"!r}, {str(pids)!r})
        while True:
            pass
    """
    return folder.write("job", source), pids


def alive(pids: Path) -> list[int]:
    """Those of the processes in the file that still run; zombies do not."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-p", pids.read_text().replace(" ", ",")],
        capture_output=True,
        text=True,
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if not line.split()[1].startswith("Z")]


def wait_until_dead(pids: Path) -> None:
    deadline = time.monotonic() + 5
    while alive(pids):
        assert time.monotonic() < deadline, "the process group was not killed"
        time.sleep(0.05)


def test_an_endless_loop_is_killed_with_what_it_started(folder: Folder) -> None:
    good = folder.write("good", GOOD)
    begun = time.monotonic()
    folder.look(f"{good}:Good")
    enough_s = round(max(1.5, 4 * (time.monotonic() - begun)), 1)  # for a child to start
    module, pids = spinning(folder)
    report = folder.look(f"{module}:Good", timeout_s=enough_s)
    assert report.error == f"{module}:Good: did not finish loading within {enough_s:g} s"
    wait_until_dead(pids)


def test_cancelling_kills_the_child(folder: Folder) -> None:
    module, pids = spinning(folder)

    async def cancelled() -> None:
        task = asyncio.create_task(
            inspect_handler(f"{module}:Good", packages=(folder.package,), path=folder.path)
        )
        while not pids.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
        assert len(alive(pids)) == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancelled(), 15))
    wait_until_dead(pids)


MODELS = """
    from typing import Annotated, Literal, Union
    from pydantic import BaseModel, ConfigDict, Field, field_validator
    from connecthub.plugins import BaseJob

    class Company(BaseModel):
        id: int

    class A(BaseModel):
        kind: Literal["a"]

    class B(BaseModel):
        kind: Literal["b"]

    class Job(BaseJob):
        class Params(BaseModel):
            model_config = ConfigDict(extra="forbid")
            base_url: str = Field(pattern="^https?://")
            companies: list[Company] = []

        class Secrets(BaseModel):
            key: str = Field(max_length=5)
            pin: int = 0
            either: Annotated[Union[A, B], Field(discriminator="kind")] | None = None
            how: str = ""
            @field_validator("how")
            @classmethod
            def check(cls, value):
                print(value)
                if value.startswith("cut"):
                    raise ValueError(f"begins with {value[3:9].upper()}")
                if value.startswith("plain"):
                    raise ValueError("must be 32 hex digits")
                if value.startswith("type"):
                    raise TypeError(value)
                if value.startswith("exit"):
                    raise SystemExit(value)
                return value

        def run(self, params, secrets): ...
"""


def test_models_name_the_field(folder: Folder) -> None:
    module = folder.write("job", MODELS)
    good = {"base_url": "http://x", "companies": [{"id": 1}]}
    assert folder.look(f"{module}:Job", public_cfg=good, secret_cfg={"key": "k"}) == HandlerReport(None)
    bad = {"companies": [{"id": 1}, {"id": CANARY}], "base_uri": CANARY}
    report = folder.look(f"{module}:Job", public_cfg=bad)
    assert [(error.section, error.field) for error in report.field_errors] == [
        ("public_cfg", "base_url"),
        ("public_cfg", "companies.1.id"),
        ("public_cfg", "base_uri"),
    ]
    assert report.field_errors[0].message == "Field required"
    assert CANARY not in repr(report)


@pytest.mark.parametrize(
    ("secrets", "field", "said"),
    [
        ({"key": CANARY}, "key", "String should have at most 5 characters"),
        ({"key": "k", "pin": CANARY}, "pin", "Input should be a valid integer"),
        ({"key": "k", "either": {"kind": CANARY}}, "either", "would show a part of the secret"),
        ({"key": "k", "how": f"cut{CANARY}"}, "how", "would show a part of the secret"),
        ({"key": "k", "how": f"plain{CANARY}"}, "how", "must be 32 hex digits"),
        ({"key": "k", "how": f"type{CANARY}"}, "", "Secrets could not check it: TypeError in a validator"),
        ({"key": "k", "how": f"exit{CANARY}"}, "", "Secrets could not check it: SystemExit in a validator"),
    ],
)
def test_a_secret_is_never_shown(folder: Folder, secrets: dict[str, Any], field: str, said: str) -> None:
    module = folder.write("job", MODELS)
    report = folder.look(f"{module}:Job", secret_cfg=secrets)
    assert report.error is None
    (error,) = report.field_errors
    assert (error.section, error.field) == ("secret_cfg", field)
    assert said in error.message
    shown = repr(report).casefold()
    assert not any(CANARY.casefold()[at : at + 4] in shown for at in range(len(CANARY) - 3))


def test_secrets_are_in_no_command_line_and_no_environment(folder: Folder) -> None:
    proof = folder.path / "seen"
    source = f"import os, sys\nopen({str(proof)!r}, 'w').write(repr((sys.orig_argv, dict(os.environ))))\n"
    module = folder.write("job", source + textwrap.dedent(GOOD))
    assert folder.look(f"{module}:Good", secret_cfg={"key": CANARY}).error is None
    assert "connecthub.plugins.inspect" in proof.read_text()
    assert CANARY not in proof.read_text()


def test_models_that_are_none_are_the_plugins_error(folder: Folder) -> None:
    module = folder.write("job", GOOD + "\n    class Odd(Good): Params = {'a': int}")
    error = folder.look(f"{module}:Odd", public_cfg={}).error
    assert error == f"{module}:Odd: Params is no pydantic model; derive it from pydantic.BaseModel"


def test_many_errors_and_large_configurations_come_through(folder: Folder) -> None:
    module = folder.write("job", MODELS)
    cfg = {"base_url": "http://x", "companies": [{"id": "x" * 1000}] * 3000}
    assert len(folder.look(f"{module}:Job", public_cfg=cfg).field_errors) == 50


def test_no_file_descriptor_is_left(folder: Folder) -> None:
    module = folder.write("job", GOOD)

    async def count() -> tuple[int, int]:
        async def look() -> int:
            await inspect_handler(f"{module}:Good", packages=(folder.package,), path=folder.path)
            await asyncio.sleep(0.05)
            return len(os.listdir("/dev/fd"))

        return await look(), await look()

    first, second = asyncio.run(count())
    assert first == second
