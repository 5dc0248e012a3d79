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
        pages = {name for name in wheel.namelist() if name.endswith(".md")}
    assert {"kdx/conf/README.md", "kdx/README.md", "kdx/tutorials/own_images.md"} <= pages
    done = subprocess.run(
        [sys.executable, "-c", "import kdx; print(kdx.__file__); from kdx.cli.main import train; train()", "--cfg", "job"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert str(tmp_path) in done.stdout
    assert "name: cqkd_digits" in done.stdout
