"""A disk that gets full in the middle of a run, and then has room again. Needs root, to mount a small one. Prints what it saw.

python scripts/checks/disk.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SHORT = "logger=none trainer=cpu trainer.max_epochs=20 teacher.recipe.trainer.max_epochs=3 preflight=off baselines=[]"
SMALL, LARGE = "size=3m", "size=60m"


def train(root: Path, disk: Path) -> subprocess.CompletedProcess[str]:
    """Train in a folder on the disk; its teacher is elsewhere."""
    words = [*SHORT.split(), "callbacks.last.seconds=0.2", f"outputs={root}/outputs", f"hydra.run.dir={disk}/run"]
    command = [sys.executable, "-m", "kdx.cli.train", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)


def main() -> None:
    """Fill the disk, look at the checkpoint, make room, and go on."""
    with tempfile.TemporaryDirectory() as folder:
        root, disk = Path(folder), Path(folder) / "a disk of ü"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(disk)], check=True)
        try:
            full = train(root, disk)
            print(f"full: exit status {full.returncode}: {full.stderr.strip().splitlines()[-1]}")
            epoch = torch.load(disk / "run/checkpoints/last.ckpt", map_location="cpu", weights_only=True)["epoch"]
            print(f"last.ckpt is whole, of epoch {epoch + 1}")
            subprocess.run(["mount", "-o", f"remount,{LARGE}", str(disk)], check=True)
            again = train(root, disk)
            told = "Going on from" in again.stderr
            print(f"with room: exit status {again.returncode}, {'went on' if told else 'did not go on'}")
            sys.exit(0 if full.returncode == 1 and "No space left" in full.stderr and again.returncode == 0 and told else 1)
        finally:
            subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    main()
