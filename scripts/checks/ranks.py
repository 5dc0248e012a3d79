"""Two ranks, killed five times and repeated: equal to the last bit. Two nodes of torchrun: one folder, equal to one process.

python scripts/checks/ranks.py
python scripts/checks/ranks.py --kills 2 --folder FOLDER
"""

from __future__ import annotations

import argparse
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

SHORT = "experiment=cqkd_digits logger=none trainer=cpu trainer.max_epochs=20 teacher.recipe.trainer.max_epochs=3 preflight=off"
WORDS = (*SHORT.split(), "baselines=[]", "callbacks.last.seconds=0.2", "data.batch_size=20")


def train(root: Path, *words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a run."""
    return start([*WORDS, f"outputs={root}/outputs", *words], root / "ranks.log", *launcher)


def killed(root: Path, given: argparse.Namespace) -> bool:
    """Kill a rank at random moments, repeat the command, and compare with a run that was not killed."""
    whole, broken = root / "whole", root / "broken"
    began = time.monotonic()
    if train(root, "trainer.devices=2", f"hydra.run.dir={whole}").wait():
        print(f"failed: see {root}/ranks.log")
        return False
    seconds, draw, ended = time.monotonic() - began, random.Random(0), []
    for number in range(given.kills):
        process = train(root, "trainer.devices=2", f"hydra.run.dir={broken}")
        while process.poll() is None and not (broken / "checkpoints").is_dir():
            time.sleep(0.05)
        wait = time.monotonic() + draw.uniform(0.55, 0.9) * seconds
        while process.poll() is None and time.monotonic() < wait:
            time.sleep(0.05)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout.split()
        victim = int(children[0]) if children and number % 2 else process.pid
        if process.poll() is None:
            os.kill(victim, signal.SIGKILL)
            began = time.monotonic()
            ended.append("rank 1" if victim != process.pid else "rank 0")
            process.wait()
            while _group_lives(process.pid) and time.monotonic() < began + 60:
                time.sleep(0.2)
            ended[-1] += f" ({time.monotonic() - began:.0f} s until all had ended)"
    status = train(root, "trainer.devices=2", f"hydra.run.dir={broken}").wait()
    found = differences(whole, broken) if status == 0 else [f"exit status {status}"]
    told = f"{len(job.attempts(broken))} attempts; killed: {', '.join(ended)}"
    print(f"2 ranks: {f'DIFFERENT {found}' if found else 'equal'} after {told}; unbroken {seconds:.0f} s", flush=True)
    return not found


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def nodes(root: Path, given: argparse.Namespace) -> bool:
    """Train on two nodes of torchrun and in one process, and compare the weights."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ("torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    two = ("trainer.num_nodes=2", "name=nodes", "trainer.strategy=ddp")
    ranks = [train(root, *two, launcher=(*torchrun, f"--node-rank={rank}", "--rdzv-id=7", "-m")) for rank in range(2)]
    codes = [rank.wait() for rank in ranks]
    code = train(root, "name=one").wait()
    folders = [sorted((root / "outputs" / name).glob("*/student.safetensors")) for name in ("nodes", "one")]
    if any(codes) or code or [len(found) for found in folders] != [1, 1]:
        print(f"nodes: exit status {codes}, {code}; folders {folders}; see {root}/ranks.log")
        return False
    first, second = (load_file(found[0]) for found in folders)
    apart = max(float((first[name].float() - second[name].float()).abs().max()) for name in first)
    print(f"2 nodes of torchrun: one folder, weights within {apart:.1e} of one process")
    return apart < 1e-5 and bool(torch.tensor(apart).isfinite())


def main() -> None:
    """Check both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    run(parser, killed, nodes)


if __name__ == "__main__":
    main()
