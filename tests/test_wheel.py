"""A built wheel carries its license and configuration and finds the latter; a source distribution builds and tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def build(target: str, folder: Path) -> Path:
    """The distribution that `target` names, wheel or sdist, built into `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.iterdir())


def test_wheel_composes_from_its_own_conf(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path / "dist")) as wheel:
        wheel.extractall(tmp_path / "site")
        pages = {name for name in wheel.namelist() if name.endswith(".md")}
    assert {"kdx/conf/README.md", "kdx/README.md", "kdx/tutorials/own_images.md"} <= pages
    (information,) = (tmp_path / "site").glob("kdx-*.dist-info")
    assert (information / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "License-Expression: Apache-2.0" in (information / "METADATA").read_text(encoding="utf-8")
    shown = _printed(tmp_path, "--cfg", "job")
    assert str(tmp_path) in shown
    assert "name: cqkd_digits" in shown
    assert f"{tmp_path}/site/kdx/conf" in _printed(tmp_path, "--help")


def test_source_distribution_holds_all_that_is_tracked(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    left_out = {name for name in tracked if name.startswith((".", "outputs/"))}
    assert {*tracked} - left_out <= held
    assert {name.split("/")[0] for name in held} <= {name.split("/")[0] for name in tracked} | {"PKG-INFO"}


def _printed(folder: Path, *words: str) -> str:
    """What kdx-train of the wheel prints."""
    code = "import kdx; print(kdx.__file__); from kdx.cli.train import main; main()"
    line = [sys.executable, "-c", code, *words]
    env = {**os.environ, "PYTHONPATH": str(folder / "site")}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=True).stdout
