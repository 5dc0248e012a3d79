"""A built wheel carries its configuration and finds it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_composes_from_its_own_conf(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    shown = _printed(tmp_path, "--cfg", "job")
    assert str(tmp_path) in shown
    assert "name: cqkd_digits" in shown
    assert f"{tmp_path}/site/kdx/conf" in _printed(tmp_path, "--help")


def _printed(folder: Path, *words: str) -> str:
    """What kdx-train of the wheel prints."""
    code = "import kdx; print(kdx.__file__); from kdx.cli.train import main; main()"
    line = [sys.executable, "-c", code, *words]
    env = {**os.environ, "PYTHONPATH": str(folder / "site")}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
