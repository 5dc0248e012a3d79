"""The tutorials work from the first block to the last, each in an empty folder, as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from docpages import TUTORIALS, blocks


@pytest.mark.minutes
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_works(page: Path, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks(page):
        if block.file is not None:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(quick(block.text))
        elif block.language == "bash":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", quick(block.text)],
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def quick(text: str) -> str:
    """The same with fewer epochs and fewer seeds: a test asks whether it works, not what comes out."""
    for long, brief in {
        "epochs = 5": "epochs = 1",
        "trainer.max_epochs=10 ": "trainer.max_epochs=2 ",
        "trainer.max_epochs=15": "trainer.max_epochs=2",
        "trainer.max_epochs=30": "trainer.max_epochs=2",
        "seed=0,1,2": "seed=0,1",
    }.items():
        text = text.replace(long, brief)
    return text
