"""Slurm: an array of four jobs, and a job of two ranks that is told to end by SIGUSR2, is queued again, and goes on.

Needs a Slurm that is running (sbatch, srun, scancel) and kdx[slurm]. Prints what it saw; takes minutes, as Slurm waits before
it starts a job again.

python scripts/checks/slurm.py
"""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from pathlib import Path

from checking import run, start

from kdx.run import job
from kdx.run.sweep_folder import count, statuses

SHORT = "trainer=cpu teacher.recipe.trainer.max_epochs=3 preflight=off hydra.launcher.gpus_per_node=null"
WORDS = (*SHORT.split(), "launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1")


def sweep(root: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    """Start a sweep on Slurm."""
    given = ["-m", *words, *WORDS, f"sweep={name}", f"outputs={root}"]
    return start(given, root / f"{name}.log", WANDB_MODE="offline")


def array(root: Path, given: argparse.Namespace) -> bool:
    """Run four jobs."""
    code = sweep(root, "array", "seed=range(4)", "trainer.max_epochs=3", "logger=none").wait()
    found = count(statuses(root / "sweeps" / "array"))
    print(f"array: exit status {code}, {found}", flush=True)
    return code == 0 and found == {"finished": 4}


def preempted(root: Path, given: argparse.Namespace) -> bool:
    """Send SIGUSR2 to a job with two ranks in the middle of its training."""
    process = sweep(root, "preempted", "seed=7", "trainer.max_epochs=150", "trainer.devices=2", "logger=wandb")
    folder = root / "sweeps" / "preempted" / "0-cqkd_digits"
    while not (folder / "checkpoints" / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.5)
    number = next(path.name for path in (root / "sweeps" / "preempted" / ".submitit").glob("[0-9]*"))
    subprocess.run(["scancel", "--signal=USR2", number.partition("_")[0]], check=True)
    code = process.wait()
    log = (folder / "train.log").read_text(encoding="utf-8")
    went_on = re.findall(r"Going on from \S+", log)
    runs = {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}
    print(f"preempted: exit status {code}, {len(job.attempts(folder))} attempts, {went_on}, W&B runs {runs}")
    return code == 0 and len(job.attempts(folder)) == 2 and bool(went_on) and len(runs) == 1


if __name__ == "__main__":
    run(argparse.ArgumentParser(description=__doc__), array, preempted)
