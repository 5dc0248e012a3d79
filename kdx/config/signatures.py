"""Signatures of constructors, read from source text without importing it.

Importing torch, timm and Lightning takes seconds, too long for a message such as "Unknown key 'wieght'". Therefore `_target_`s
are resolved by following files, classes, base classes and re-exports through their syntax trees.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import typing
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from kdx import ranges

EVALUATED = {**vars(typing), **vars(ranges), "Mapping": typing.Mapping, "Sequence": typing.Sequence}


@dataclass(frozen=True)
class Signature:
    """Parameters by name, with their annotation (Any if it does not consist of plain types)."""

    parameters: dict[str, Any]
    required: frozenset[str]
    open: bool  # takes **kwargs


class NotFoundError(LookupError):
    """The module or the name does not exist."""


@functools.cache
def signature(target: str) -> Signature | None:
    """Return the signature of the class or function at a dotted path; None if the syntax tree does not contain it.

    Raises:
        NotFoundError: If the module or the name does not exist.
    """
    module, _, name = target.rpartition(".")
    definition = _find(module, name)
    return None if definition is None else _describe(*definition)


def definition(target: str) -> tuple[str, bool]:
    """Return the module that defines `target`, following imports, and whether it is a class.

    What cannot be followed, such as an assignment or a compiled module, counts as defined in the module that `target` names,
    and as no class. NotFoundError if the module or the name does not exist.
    """
    module, _, name = target.rpartition(".")
    found = _find(module, name)
    return (module, False) if found is None else (found[0], isinstance(found[1], ast.ClassDef))


@functools.cache
def _module(name: str) -> tuple[ast.Module, bool] | None:
    """Return the syntax tree of a module and whether it is a package; None if it is not written in Python."""
    spec: ModuleSpec | None = None
    for depth, part in enumerate(parts := name.split(".")):
        if depth == 0:
            spec = importlib.util.find_spec(part) if part else None
        elif spec is not None and spec.submodule_search_locations is not None:
            spec = PathFinder.find_spec(".".join(parts[: depth + 1]), list(spec.submodule_search_locations))
        else:
            spec = None
        if spec is None:
            raise NotFoundError(f"No module '{'.'.join(parts[: depth + 1])}': check the spelling")
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return tree, spec.submodule_search_locations is not None


def _find(module: str, name: str, depth: int = 0) -> tuple[str, ast.ClassDef | ast.FunctionDef] | None:
    """Return the module that defines `name`, looked up from `module`, and the definition; None if it cannot be found."""
    parsed = _module(module)
    if parsed is None or depth > 8:
        return None
    tree, package = parsed
    stars: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name and node in tree.body:
            return module, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    stars.append(_absolute(module, package, node))
                if (alias.asname or alias.name) == name:
                    return _find(_absolute(module, package, node), alias.name, depth + 1)
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return None
    for star in stars:
        try:
            found = _find(star, name, depth + 1)
        except NotFoundError:
            continue
        if found is not None:
            return found
    if stars or any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
        return None
    raise NotFoundError(f"Module '{module}' has no '{name}': check the spelling")


def _absolute(module: str, package: bool, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _describe(module: str, node: ast.ClassDef | ast.FunctionDef) -> Signature | None:
    if isinstance(node, ast.FunctionDef):
        return _parameters(node.args, skip=0)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _parameters(item.args, skip=1)
    for base in node.bases:
        if not isinstance(base, (ast.Name, ast.Attribute)):
            continue
        path = ast.unparse(base)
        if path in ("ABC", "object", "Protocol"):
            continue
        if "." in path:
            return None
        definition = _find(module, path)
        return None if definition is None else _describe(*definition)
    return Signature({}, frozenset(), False)


def _parameters(args: ast.arguments, skip: int) -> Signature:
    positional = [*args.posonlyargs, *args.args]
    without_default = positional[: len(positional) - len(args.defaults)][skip:]
    required = [*without_default, *(a for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is None)]
    parameters = [*positional[skip:], *args.kwonlyargs]
    annotations = {a.arg: _evaluate(a.annotation) for a in parameters}
    return Signature(annotations, frozenset(a.arg for a in required), args.kwarg is not None)


def _evaluate(annotation: ast.expr | None) -> Any:
    if annotation is None:
        return Any
    try:
        return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), dict(EVALUATED))
    except (NameError, AttributeError, TypeError):
        return Any
