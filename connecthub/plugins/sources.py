"""Which files the modules of plugins come from: noted before each import, compared with the disk later."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_DIGITS = 16  # of SHA-256: enough to tell two versions of a file apart, short enough for every run


@dataclass(frozen=True)
class Source:
    """A file as it was: `stamp` is its time and size, `digest` the first 16 hex digits of its SHA-256."""

    file: Path
    stamp: tuple[int, int]
    digest: str

    @classmethod
    def of(cls, file: Path) -> Source | None:
        """As it is now; None where it cannot be read."""
        try:
            found = file.stat()
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:_DIGITS]
        except (OSError, ValueError):
            return None
        return cls(file, (found.st_mtime_ns, found.st_size), digest)

    @property
    def has_changed(self) -> bool:
        """Whether the file now says something else, or is gone."""
        try:
            found = self.file.stat()
        except (OSError, ValueError):
            return True
        if (found.st_mtime_ns, found.st_size) == self.stamp:
            return False
        now = Source.of(self.file)
        return now is None or now.digest != self.digest


class Sources:
    """The files behind the modules that `belongs` says True for. Safe to call from any thread."""

    def __init__(self, belongs: Callable[[str], bool]) -> None:
        self._belongs = belongs
        self._known: dict[str, Source | None] = {}
        self._lock = threading.Lock()

    def note(self, imported: dict[str, Source | None]) -> None:
        """These modules were imported just now, from files that looked so before."""
        with self._lock:
            self._known.update(imported)

    def of(self, module: str) -> Source | None:
        """What `module` was loaded from; one that came before anybody noted is looked at now."""
        with self._lock:
            if module not in self._known:
                found = sys.modules.get(module)
                # From its dict: what a plugin puts into sys.modules may run code when it is asked.
                file = vars(found).get("__file__") if isinstance(found, ModuleType) else None
                self._known[module] = Source.of(Path(file)) if isinstance(file, str) else None
            return self._known[module]

    def changed(self) -> list[str]:
        """The loaded modules whose files are no longer what was loaded, sorted."""
        loaded = [name for name in list(sys.modules) if isinstance(name, str) and self._belongs(name)]
        sources = [(name, self.of(name)) for name in loaded]  # also those that a run imported later
        return sorted(name for name, source in sources if source is not None and source.has_changed)


def commit_of(file: Path) -> str | None:
    """The commit that the git checkout around `file` stands at, 12 digits; None where there is none.

    Read from the files (gitrepository-layout(5)): a container rarely has git, and git refuses a folder of
    another user.
    """
    try:
        for folder in file.resolve().parents:
            if (folder / ".git").exists():
                return _head(folder / ".git")
    except (OSError, ValueError):
        pass
    return None


def _head(git: Path) -> str | None:
    if git.is_file():  # a worktree or submodule names its folder
        git = (git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()).resolve()
    head = (git / "HEAD").read_text("utf-8").strip()
    if not head.startswith("ref: "):
        return _commit(head)
    ref = head.removeprefix("ref: ")
    shared = git / "commondir"
    common = (git / shared.read_text("utf-8").strip()).resolve() if shared.exists() else git
    for place in (git, common):
        if (place / ref).is_file():
            return _commit((place / ref).read_text("utf-8").strip())
    for line in (common / "packed-refs").read_text("utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return _commit(commit)
    return None


def _commit(text: str) -> str | None:
    is_hash = len(text) in (40, 64) and all(digit in "0123456789abcdef" for digit in text)
    return text[:12] if is_hash else None


class Recorder:
    """An import hook that finds nothing and notes who looks: the names that a thread is first to import.

    A comparison of sys.modules before and after would blame a load for what other threads import meanwhile.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def recording(self, belongs: Callable[[str], bool]) -> Iterator[dict[str, Source | None]]:
        """The modules that `belongs` is True for and that this thread begins to import in the block.

        Each with its file as it was before: what changes during the import is then seen as changed.
        """
        before = getattr(self._local, "noted", None)
        imported: dict[str, Source | None] = {}
        self._local.noted = (belongs, imported)
        try:
            yield imported
        finally:
            self._local.noted = before

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Note the module; the finders that follow do the finding."""
        noted = getattr(self._local, "noted", None)
        if noted is not None and noted[0](fullname):
            self._local.noted = None  # what is looked up here is no import
            try:
                spec = PathFinder.find_spec(fullname, path)
                noted[1][fullname] = Source.of(Path(spec.origin)) if spec and spec.origin else None
            finally:
                self._local.noted = noted
        return None


recorder = Recorder()
sys.meta_path.insert(0, recorder)  # once and for good: taking it out would disturb imports elsewhere
