"""Which handlers there are in the allowed packages, with what their classes say about themselves.

The files are found without importing anything; what may hold a handler is imported in a child process, one
module after another, so that a module which hangs or ends its process is known by name and costs only itself.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from connecthub.errors import HandlerError
from connecthub.plugins.api import BaseJob
from connecthub.plugins.child import Answer, Child, end_after, not_started, serve
from connecthub.plugins.loader import Loader

_MODULE_S = 10.0  # a module that takes longer to import is listed as broken
_DOC_LIMIT = 4000  # characters
_SCHEMA_LIMIT = 100_000  # characters of JSON; a larger model is edited as JSON only


@dataclass(frozen=True)
class Handler:
    """A Job class. `params` and `secrets` are JSON schemas, None where the class has no such model."""

    path: str  # pkg.mod:Class
    doc: str  # its own docstring, whole
    params: dict[str, Any] | None
    secrets: dict[str, Any] | None

    @property
    def has_dry_run(self) -> bool:
        """Whether its Params declare `dry_run`."""
        return "dry_run" in ((self.params or {}).get("properties") or {})


@dataclass(frozen=True)
class BrokenModule:
    """A module, or a whole package, that cannot be imported, and why, in one line."""

    module: str
    error: str


@dataclass(frozen=True)
class Found:
    """What there is, in the order of the names."""

    handlers: tuple[Handler, ...] = ()
    broken: tuple[BrokenModule, ...] = ()

    def get(self, handler_path: str) -> Handler | None:
        """The handler of a path in either form, None where it is not one of these."""
        module, _, name = handler_path.replace(":", ".").rpartition(".")
        return next((one for one in self.handlers if one.path == f"{module}:{name}"), None)


class Catalogue:
    """The handlers of the allowed packages, looked up anew only when a file has changed."""

    def __init__(self, packages: tuple[str, ...], path: Path) -> None:
        """`path` is the folder that holds the packages."""
        self.packages, self.path = packages, path
        self._lock = asyncio.Lock()
        self._key: object = None
        self._found = Found()

    async def found(self) -> Found:
        """All handlers; the first call after a change takes as long as the imports do.

        Where no process can be started these are the handlers of before, with the packages as broken.
        """
        async with self._lock:
            files, key = await asyncio.to_thread(self._look_at_files)
            if key != self._key:
                try:
                    self._found = await _look(files, self.packages, self.path)
                except OSError as error:  # not remembered, so that the next call looks again
                    broken = tuple(BrokenModule(name, not_started(error)) for name in self.packages)
                    return replace(self._found, broken=broken)
                self._key = key
            return self._found

    def _look_at_files(self) -> tuple[dict[str, Path], object]:
        """The modules there are, and what differs once one of them has changed."""
        files = dict(_files(self.packages, self.path))
        return files, [(name, _stamp(file)) for name, file in files.items()]


def missing_packages(packages: tuple[str, ...], path: Path) -> list[str]:
    """Those of the packages that are nowhere; `path` is the folder that holds them."""
    return [package for package in packages if not list(_folders(package, path))]


def _folders(package: str, path: Path) -> Iterator[Path]:
    """The folders of a package, which may be several."""
    top, *below = package.split(".")
    with contextlib.suppress(ImportError, ValueError):
        spec = PathFinder.find_spec(top, [str(path.resolve()), *sys.path])
        folders = [Path(folder, *below) for folder in (spec and spec.submodule_search_locations) or ()]
        yield from filter(Path.is_dir, folders)


def _files(packages: tuple[str, ...], path: Path) -> Iterator[tuple[str, Path]]:
    """Modules of `packages` by name. A folder without `__init__.py` is a package too."""
    for package in sorted(packages):
        for root in _folders(package, path):
            for file in sorted(root.rglob("*.py")):
                parts = [package, *file.relative_to(root).with_suffix("").parts]
                if parts[-1] == "__init__":
                    del parts[-1]
                name = ".".join(parts)
                if all(part.isidentifier() and part != "__main__" for part in name.split(".")):
                    yield name, file


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:  # gone meanwhile, or a link into nowhere
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _may_hold_a_class(file: Path) -> bool:
    """Whether a class is derived from another in `file`; so it may also be where that cannot be told."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return True
    return any(isinstance(node, ast.ClassDef) and node.bases for node in ast.walk(tree))


async def _look(files: Mapping[str, Path], packages: tuple[str, ...], path: Path) -> Found:
    """Raises OSError where no process can be started."""
    holding = await asyncio.to_thread(lambda: [name for name in files if _may_hold_a_class(files[name])])
    todo = list(dict.fromkeys(holding))
    handlers: list[Handler] = []
    broken: list[BrokenModule] = []
    while todo:
        request = {"modules": todo, "packages": packages, "path": str(path), "module_s": _MODULE_S}
        child, error = Child("connecthub.plugins.discover", request), None
        async with child:
            while todo and error is None:
                error = await _next(child, handlers, broken, todo)
        if error is not None:
            broken.append(BrokenModule(todo.pop(0), error or _without_answer(child)))
    return Found(tuple(sorted(handlers, key=lambda one: one.path)), tuple(broken))


async def _next(
    child: Child, handlers: list[Handler], broken: list[BrokenModule], todo: list[str]
) -> str | None:
    """Take over what the child says of the first module; else why it says nothing, empty: it has ended."""
    try:
        answer = json.loads(await asyncio.wait_for(child.line(), _MODULE_S))
    except TimeoutError:
        return f"did not finish loading within {_MODULE_S:g} s"
    except ValueError:
        return ""
    module = todo.pop(0)
    handlers += [Handler(**one) for one in answer["handlers"]]
    if answer["error"]:
        broken.append(BrokenModule(module, answer["error"]))
    return None


def _without_answer(child: Child) -> str:
    return f"ends the process that loads it ({child.end()})"


# --- in the child -----------------------------------------------------------------------------------------


def _work(request: dict[str, Any], answer: Answer) -> None:
    loader = Loader(tuple(request["packages"]), Path(request["path"]))
    for module in request["modules"]:
        end_after(request["module_s"] + 5)
        try:
            answer({"handlers": list(_handlers(loader, module)), "error": ""})
        except HandlerError as error:
            answer({"handlers": [], "error": str(error)})


def _handlers(loader: Loader, module: str) -> Iterator[dict[str, Any]]:
    """The Job classes that `module` itself defines. Raises HandlerError where it cannot be imported."""
    for name, found in list(vars(loader.module(module)).items()):
        try:
            own = isinstance(found, type) and found.__module__ == module and not name.startswith("_")
            if not own or not issubclass(found, BaseJob):
                continue
            cls = loader.load(f"{module}:{name}")
            yield {
                "path": f"{module}:{name}",
                "doc": _doc(cls),
                "params": _schema(cls.Params),
                "secrets": _schema(cls.Secrets),
            }
        except HandlerError:  # a base class of the author's own: it has no `run`
            continue


def _doc(cls: type[BaseJob]) -> str:
    """The class's own docstring; an inherited one would describe another class."""
    text = cls.__doc__
    return inspect.cleandoc(text)[:_DOC_LIMIT] if isinstance(text, str) else ""


def _schema(model: Any) -> dict[str, Any] | None:
    try:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        schema = model.model_json_schema()
        return schema if len(json.dumps(schema)) <= _SCHEMA_LIMIT else None
    except Exception:  # types that JSON schema has no words for: such a model is edited as JSON
        return None


if __name__ == "__main__":
    serve(_work)
