"""The floors and fences of the design, and a house that can be read."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "kdx").rglob("*.py"))


def test_import_contracts_are_kept() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_top_level_is_the_agreed_one() -> None:
    allowed = {"pyproject.toml", "conf", "kdx", "scripts", "tests", "outputs", "README.md", "CHANGELOG.md", "LICENSE"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    top = {name.split("/")[0] for name in tracked}
    assert {name for name in top if not name.startswith(".")} <= allowed


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_script_is_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 30


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_small_and_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 260


def test_what_is_excepted_from_a_check_has_its_reason() -> None:
    checked = [path for folder in ("kdx", "tests", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    bare = re.compile(r"# (?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\]|noqa|type: ignore)\s*$")
    found = [f"{path}: {line}" for path in checked for line in path.read_text().splitlines() if bare.search(line)]
    assert not found
    assert bare.search("x = 1  # type: ignore[arg-type]") and not bare.search("x = 1  # noqa: E731 - short")


def test_instantiate_is_called_in_one_place() -> None:
    calls = [
        path.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "instantiate"
    ]
    assert calls == ["build.py"]
