"""A disk that gets full in the middle of a run, and then has room again. Needs root, to mount a small one. Prints what it saw.

python scripts/checks/disk.py
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import torch
from checking import run, start

SHORT = "logger=none trainer=cpu trainer.max_epochs=20 teacher.recipe.trainer.max_epochs=3 preflight=off baselines=[]"
SMALL, LARGE = "size=3m", "size=60m"


def train(root: Path, disk: Path) -> tuple[int, str]:
    """Train in a folder on the disk, its teacher elsewhere. Return the exit status and what was printed."""
    words = [*SHORT.split(), "callbacks.last.seconds=0.2", f"outputs={root}/outputs", f"hydra.run.dir='{disk}/run'"]
    log = root / "disk.log"
    log.unlink(missing_ok=True)
    return start(words, log).wait(), log.read_text(encoding="utf-8")


def full(root: Path, given: argparse.Namespace) -> bool:
    """Fill the disk, look at the checkpoint, make room, and go on."""
    disk = root / "a disk of ü"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(disk)], check=True)
    try:
        status, told = train(root, disk)
        print(f"full: exit status {status}: {told.strip().splitlines()[-1]}")
        epoch = torch.load(disk / "run/checkpoints/last.ckpt", map_location="cpu", weights_only=True)["epoch"]
        print(f"last.ckpt is whole, of epoch {epoch + 1}")
        subprocess.run(["mount", "-o", f"remount,{LARGE}", str(disk)], check=True)
        again, more = train(root, disk)
        print(f"with room: exit status {again}, {'went on' if 'Going on from' in more else 'did not go on'}")
        return status == 1 and "No space left" in told and again == 0 and "Going on from" in more
    finally:
        subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    run(argparse.ArgumentParser(description=__doc__), full)
