"""Slurm's tools on PATH change nothing where no Slurm job runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning_fabric.plugins.environments import SLURMEnvironment


@pytest.fixture
def with_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `srun` on PATH, outside of any Slurm job."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\nexit 1\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("with_srun")
def test_lightning_warns_of_an_unused_srun() -> None:
    with pytest.warns(UserWarning, match="`srun` command is available on your system but is not used"):
        SLURMEnvironment.detect()


@pytest.mark.usefixtures("with_srun")
def test_kdx_does_not_repeat_the_warning() -> None:
    code = (
        "import kdx.training, pytorch_lightning as pl; pl.Trainer(accelerator='cpu', logger=False, enable_checkpointing=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "srun" not in done.stdout + done.stderr
