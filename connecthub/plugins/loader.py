"""From a `handler_path` to its Job class, whatever the module does on the way.

A handler_path is `pkg.mod:Class` (preferred) or `pkg.mod.Class`. It is compared with the allowed packages by
whole dotted names before anything is imported. A class that was loaded stays as it is until the hub starts
again; a failure is forgotten, together with the modules it brought in, so that the next run sees a corrected
file.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from itertools import accumulate
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from connecthub.errors import HandlerError
from connecthub.plugins.api import BaseJob
from connecthub.plugins.sources import Sources, commit_of, recorder
from connecthub.plugins.unimported import says_process, source_of

_MESSAGE_LIMIT = 300  # characters of a foreign message that a person is shown
_looking = threading.Lock()


class Loader:
    """Loads Job classes of the allowed `packages`; safe to call from any thread."""

    def __init__(self, packages: tuple[str, ...], path: Path) -> None:
        """`path` is the folder that holds the packages.

        It joins sys.path in front, unless it is there already: an installed package, or one in the current
        folder, that happens to have the same name must not hide the one the setting means.
        """
        self.packages = packages
        self.path = path.resolve()
        self._classes: dict[str, type[BaseJob]] = {}
        self._code: dict[str, dict[str, str]] = {}
        self._sources = Sources(self._allowed)
        self._lock = threading.Lock()
        self._loading = 0
        self._begun = 0
        self._stale: dict[str, str] = {}  # what a package still has of a failed load, and of which module's
        if str(self.path) not in sys.path:
            sys.path.insert(0, str(self.path))

    def cached(self, handler_path: str) -> type[BaseJob] | None:
        """The class if it was loaded before; never imports, never blocks."""
        return self._classes.get(handler_path)

    def load(self, handler_path: str) -> type[BaseJob]:
        """The Job class of `handler_path`. Raises HandlerError, and nothing else, with one line for a person.

        Blocks for as long as the module's import does. SystemExit and KeyboardInterrupt raised by the module
        become HandlerError too.
        """
        known = self._classes.get(handler_path)
        if known is not None:
            return known
        module_name, class_name = self._split(handler_path)
        with self._forget_on_failure(module_name):
            module = self._import(handler_path, module_name)
            cls = self._job_class(handler_path, module, class_name)
        self._code.setdefault(handler_path, self._version(cls, module_name))
        return self._classes.setdefault(handler_path, cls)

    def code(self, handler_path: str) -> dict[str, str] | None:
        """Which code the loaded class is: `module`, `sha256` of its file (16 digits), perhaps `commit`.

        None where it was not loaded here, or its file could not be read. The commit is that of the checkout,
        which may hold changes of its own: the hash tells.
        """
        return self._code.get(handler_path) or None

    def changed(self) -> list[str]:
        """The modules of the allowed packages whose files have changed since they were loaded, sorted."""
        return self._sources.changed()

    def _version(self, cls: type[BaseJob], module_name: str) -> dict[str, str]:
        name = cls.__module__ if self._allowed(cls.__module__) else module_name
        source = self._sources.of(name)
        if source is None:
            return {}
        commit = commit_of(source.file)
        return {"module": name, "sha256": source.digest} | ({"commit": commit} if commit else {})

    def is_isolated(self, handler_path: str) -> bool:
        """Whether the class's own body says `isolation = "process"`, by its source: nothing is imported.

        False where no source is found. Raises HandlerError as `load` does for a path that is not allowed.
        """
        module_name, class_name = self._split(handler_path)
        try:
            return says_process(source_of(module_name), class_name)
        except Exception:  # what is wrong with the module is for `load` to say
            return False

    def module(self, name: str) -> ModuleType:
        """The module `name` of an allowed package. Raises HandlerError with one line for a person."""
        if not self._allowed(name):
            raise HandlerError(f"{name} is outside the allowed packages")
        with self._forget_on_failure(name):
            return self._import(name, name)

    def _split(self, handler_path: str) -> tuple[str, str]:
        """Module and class name; raises HandlerError where the form is wrong or the module not allowed."""
        separator = ":" if ":" in handler_path else "."
        module_name, _, class_name = handler_path.rpartition(separator)
        if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
            shown = repr(handler_path[:200])
            raise HandlerError(
                f"{shown} is no handler path: write pkg.mod:Class, for example extensions.hello.job:HelloJob"
            )
        if not self._allowed(module_name):
            names = ", ".join(self.packages) or "(none)"
            raise HandlerError(
                f"{handler_path}: {module_name} is outside the allowed packages {names}; "
                "move it into one of them or add its package to [plugins] packages"
            )
        return module_name, class_name

    def _allowed(self, module_name: str) -> bool:
        return any(module_name == name or module_name.startswith(f"{name}.") for name in self.packages)

    def _import(self, handler_path: str, module_name: str) -> ModuleType:
        _look_anew()
        try:
            # From the outermost package in: Python begins a module while another thread still imports its
            # package, and the two may then wait for each other.
            for name in accumulate(module_name.split("."), "{}.{}".format):
                module = importlib.import_module(name)
            return module
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing and f"{module_name}.".startswith(f"{missing}."):
                raise HandlerError(
                    f"{handler_path}: there is no module {missing} in {self.path} or elsewhere on sys.path; "
                    "correct the handler path or add the file"
                ) from None
            raise self._import_failed(handler_path, module_name, error) from error
        except BaseException as error:  # sys.exit() at import must not end the hub
            raise self._import_failed(handler_path, module_name, error) from error

    def _import_failed(self, handler_path: str, module_name: str, error: BaseException) -> HandlerError:
        where = f" ({place})" if (place := self._place(error)) else ""
        return HandlerError(
            f"{handler_path}: importing {module_name} failed: {describe(error)}{where}; "
            "correct the module, the next run loads it again"
        )

    def _job_class(self, handler_path: str, module: ModuleType, class_name: str) -> type[BaseJob]:
        """The class in `module`, checked; raises HandlerError."""
        try:
            found: Any = getattr(module, class_name, None)
            complaint = _complaint(found, module.__name__, class_name)
        except BaseException as error:  # a module's __getattr__ and a metaclass are foreign code as well
            raise self._import_failed(handler_path, module.__name__, error) from error
        if complaint:
            raise HandlerError(f"{handler_path}: {complaint}")
        cls: type[BaseJob] = found
        return cls

    @contextmanager
    def _forget_on_failure(self, module_name: str) -> Iterator[None]:
        """If the block raises, drop the modules of the allowed packages that its thread imported."""
        with self._lock:
            was_alone = not self._loading
            self._loading += 1
            self._begun = begun = self._begun + 1
            stale = [name for name, used_by in self._stale.items() if used_by == module_name]
        failed = True
        try:
            with recorder.recording(self._allowed) as imported:
                for name in stale:
                    with suppress(BaseException):
                        importlib.import_module(name)
                yield
            self._sources.note(imported)
            failed = False
        finally:
            with self._lock:
                self._loading -= 1
                if failed:
                    self._forget({*imported, module_name}, module_name, was_alone and begun == self._begun)
                else:
                    self._stale = {name: by for name, by in self._stale.items() if by != module_name}

    def _forget(self, names: set[str], used_by: str, alone: bool) -> None:
        """Drop `names` from sys.modules and from their packages, as far as nobody else may hold on to them.

        Where other loads went on meanwhile packages stay, because an import below them needs them, and so do
        the attributes by which `import pkg.mod` reaches a module, until it is imported again for `used_by`. A
        package with other modules below it stays, and so does what another thread has begun to import anew.
        """
        kept = [name for name in list(sys.modules) if name not in names]
        for name in names:
            module = sys.modules.get(name)
            if module is None or _is_importing(module):
                continue
            in_use = not alone or any(other.startswith(f"{name}.") for other in kept)
            if in_use and isinstance(module, ModuleType) and "__path__" in vars(module):
                continue
            sys.modules.pop(name, None)  # a failed import in another thread takes it out as well
            parent, _, child = name.rpartition(".")
            package = sys.modules.get(parent)
            if package is None or vars(package).get(child) is not module:
                continue
            if alone and name not in self._stale:
                delattr(package, child)
            else:
                self._stale[name] = used_by

    def _place(self, error: BaseException) -> str:
        """Where in the author's code `error` arose, `hello/job.py line 3`; empty where that is not known."""
        if isinstance(error, SyntaxError) and error.filename:
            return self._shown(error.filename, error.lineno or 0)
        place = ""
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if self._allowed(str(frame.f_globals.get("__name__", ""))):
                place = self._shown(frame.f_code.co_filename, trace.tb_lineno)
            trace = trace.tb_next
        return place

    def _shown(self, filename: str, line: int) -> str:
        file = Path(filename)
        shown = file.relative_to(self.path) if file.is_relative_to(self.path) else file
        return f"{shown} line {line}"


def describe(error: BaseException) -> str:
    """`Type: message` on one line, cut at a length that a person reads; never raises."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:  # a broken __str__ of a plugin's own exception
        text = "(its message cannot be read)"
    kind = type(error).__name__
    return one_line(f"{kind}: {text}" if text else kind)


def one_line(text: str) -> str:
    """`text` with every run of white space as one blank, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LIMIT else f"{line[: _MESSAGE_LIMIT - 1]}…"


def _is_importing(module: object) -> bool:
    """Whether a thread is at its import; nothing is asked of an object that a plugin has put in its place."""
    spec = vars(module).get("__spec__") if isinstance(module, ModuleType) else None
    return bool(getattr(spec, "_initializing", False)) if isinstance(spec, ModuleSpec) else False


def _look_anew() -> None:
    """Let a file be found that was written a moment ago."""
    # Each deletes what it listed and fails where another was faster (CPython's PathFinder.invalidate_caches):
    # one at a time here; what a plugin does of the kind meanwhile only leaves a part of this undone.
    with _looking, suppress(KeyError):
        importlib.invalidate_caches()


def _complaint(found: Any, module_name: str, class_name: str) -> str | None:
    """What keeps `found` from being a Job class, or None."""
    if found is None:
        return f"{module_name} has no class {class_name}; correct the name or add the class"
    if not isinstance(found, type):
        kind = type(found).__name__
        return f"{class_name} in {module_name} is a {kind}, no class; name a class derived from BaseJob"
    if not issubclass(found, BaseJob):
        return f"{class_name} in {module_name} is no BaseJob; derive it from connecthub.plugins.BaseJob"
    if found.run is BaseJob.run or not callable(found.run):
        return f"{class_name} in {module_name} does not implement run; write run(self, params, secrets)"
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        return f"{class_name} in {module_name} does not implement {', '.join(missing)}; write what is missing"
    return None
