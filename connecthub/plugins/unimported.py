"""What a module says by its source alone, before anything is imported."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib.abc import SourceLoader
from importlib.machinery import PathFinder


def source_of(module_name: str) -> str:
    """The text of a module, found as an import would find it, but without importing its packages."""
    package, _, _ = module_name.rpartition(".")
    path = _search_locations(package) if package else None
    spec = PathFinder.find_spec(module_name, path)
    loader = spec.loader if spec else None
    return (loader.get_source(module_name) if isinstance(loader, SourceLoader) else None) or ""


def _search_locations(package: str) -> Sequence[str]:
    parent, _, _ = package.rpartition(".")
    spec = PathFinder.find_spec(package, _search_locations(parent) if parent else None)
    return (spec.submodule_search_locations if spec else None) or []


def says_process(source: str, class_name: str) -> bool:
    """Whether the last class of that name in `source` sets `isolation = "process"`."""
    found = False
    for node in ast.parse(source).body if "isolation" in source else []:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            found = any(map(_is_process, node.body))
    return found


def _is_process(statement: ast.stmt) -> bool:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return False
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return (
        "isolation" in names
        and isinstance(statement.value, ast.Constant)
        and statement.value.value == "process"
    )
