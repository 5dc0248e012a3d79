"""Two ranks, killed five times and repeated: equal to the last bit. Two nodes of torchrun: one folder, equal to one process.

python scripts/checks/ranks.py
python scripts/checks/ranks.py --kills 2 --folder FOLDER
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import torch
from checking import run, start
from faults import differences
from safetensors.torch import load_file

from kdx.run import job

EPOCHS = 20
TOLERANCE = 1e-6  # of the numbers, and of the weights relative to their norm
PATIENCE = 60  # seconds in which a rank that lost another one has to end
SHORT = "experiment=cqkd_digits logger=none trainer=cpu teacher.recipe.trainer.max_epochs=3 preflight=off"
WORDS = (*SHORT.split(), "baselines=[]", "callbacks.last.seconds=0.2", "data.batch_size=20", f"trainer.max_epochs={EPOCHS}")


def train(root: Path, *words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a run."""
    return start([*WORDS, f"outputs={root}/outputs", *words], root / "ranks.log", *launcher)


def killed(root: Path, given: argparse.Namespace) -> bool:
    """Kill a rank at random moments of the training, repeat the command, and compare with a run that was not killed."""
    whole, broken = root / "whole", root / "broken"
    if train(root, "trainer.devices=2", f"hydra.run.dir={whole}").wait():
        print(f"failed: see {root}/ranks.log")
        return False
    draw, ended = random.Random(0), []
    for number in range(given.kills):
        process = train(root, "trainer.devices=2", f"hydra.run.dir={broken}")
        moment = (number + draw.random()) * EPOCHS / given.kills
        while process.poll() is None and validated(broken) < moment:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.1))  # anywhere in an epoch
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout.split()
        if process.poll() is not None or not children:
            print(f"kill {number + 1} came too late: nothing was shown; see {root}/ranks.log")
            return False
        rank = (number + 1) % 2  # the child is rank 1
        os.kill(int(children[0]) if rank else process.pid, signal.SIGKILL)
        began = time.monotonic()
        process.wait()
        while _group_lives(process.pid) and time.monotonic() < began + PATIENCE:
            time.sleep(0.2)
        seconds = time.monotonic() - began
        ended.append(f"rank {rank} in epoch {validated(broken) + 1} ({seconds:.0f} s until all had ended)")
        if _group_lives(process.pid):
            print(f"{ended[-1]}: the other rank went on; see {root}/ranks.log")
            return False
    status = train(root, "trainer.devices=2", f"hydra.run.dir={broken}").wait()
    found = differences(whole, broken) if status == 0 else [f"exit status {status}"]
    told = f"{len(job.attempts(broken))} attempts; killed: {', '.join(ended)}"
    print(f"2 ranks: {f'DIFFERENT {found}' if found else 'equal'} after {told}", flush=True)
    return not found


def validated(folder: Path) -> int:
    """Return how many epochs of a run stand in its metrics.csv."""
    if not (file := folder / "metrics.csv").is_file():
        return 0
    with file.open(newline="", encoding="utf-8") as stream:
        return sum(bool(row.get("val/student/nll")) for row in csv.DictReader(stream))


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def nodes(root: Path, given: argparse.Namespace) -> bool:
    """Train on two nodes of torchrun and in one process, and compare numbers and weights.

    By SGD: sums in another order differ by rounding, which Adam makes large where a gradient is nearly zero. In few steps:
    sooner or later rounding puts the input of a ReLU on the other side of zero, and then the differences are hundredfold.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ("torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    sgd = ("optimizer=sgd", "optimizer.lr=0.005", "trainer.max_epochs=4")
    two = (*sgd, "trainer.num_nodes=2", "name=nodes", "trainer.strategy=ddp")
    ranks = [train(root, *two, launcher=(*torchrun, f"--node-rank={rank}", "--rdzv-id=7", "-m")) for rank in range(2)]
    codes = [rank.wait() for rank in ranks]
    code = train(root, *sgd, "name=one").wait()  # of 20 steps
    folders = [sorted((root / "outputs" / name).glob("*/student.safetensors")) for name in ("nodes", "one")]
    if any(codes) or code or [len(found) for found in folders] != [1, 1]:
        print(f"nodes: exit status {codes}, {code}; folders {folders}; see {root}/ranks.log")
        return False
    first, second = (torch.cat([value.double().flatten() for value in load_file(found[0]).values()]) for found in folders)
    apart, largest = float((first - second).norm() / second.norm()), float((first - second).abs().max())
    numbers = [json.loads((found[0].parent / "metrics.json").read_text(encoding="utf-8"))["metrics"] for found in folders]
    measured = [name for name in numbers[1] if name.startswith(("val/", "test/", "preflight/"))]
    differ = max(abs(numbers[0][name] - numbers[1][name]) for name in measured)
    print(f"2 nodes of torchrun: one folder; {len(measured)} numbers within {differ:.1e} of one process, ", end="")
    print(f"all weights within {apart:.1e} of their norm, a single one within {largest:.1e}")
    return apart < TOLERANCE and differ < TOLERANCE


def main() -> None:
    """Check both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    run(parser, killed, nodes)


if __name__ == "__main__":
    main()
