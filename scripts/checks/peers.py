"""How fast is kdx beside others on the same work? Training steps of resnet56 -> resnet20 at 32 px, batch 64, KD with T = 4.

Each program has a process of its own, and all take the same number of steps in turn, so that a machine which becomes slower or
faster does so for all. Each peer runs its own loop, loss, meters and networks on one batch in memory: it neither reads nor
augments images. kdx draws, crops and normalizes its own, and logs. timm has kdx's networks, as it has none for CIFAR.
On a machine without a GPU, calls of `.cuda()` in a peer's code do nothing.

Checkouts of zhengli97/CTKD, megvii-research/mdistiller, yoshitomo-matsubara/torchdistill, huggingface/pytorch-image-models:

uv run --with tensorboardX,yacs,tqdm \\
  python scripts/checks/peers.py ctkd=FOLDER mdistiller=FOLDER torchdistill=FOLDER timm=FOLDER
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

from peer_loops import KDX, PEERS, Loop, bare

STEPS = 10  # of each program in a round
WARM_UP = 2  # rounds that are not counted
ROUNDS = 10


class Pace:
    """Called before each step: every STEPS steps, tell how long they took, and wait until it is this process's turn again."""

    def __init__(self, to: TextIO) -> None:
        self.to, self.began, self.count = to, time.perf_counter(), 0

    def __call__(self) -> None:
        if self.count % STEPS == 0:
            self.to.write(f"{(time.perf_counter() - self.began) / STEPS * 1e3}\n")
            self.to.flush()
            sys.stdin.readline()
            self.began = time.perf_counter()
        self.count += 1


def serve(name: str, checkout: str, folder: str) -> None:
    """Train as the program of this name, in turn with others."""
    with os.fdopen(os.dup(1), "w") as to, open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.ExitStack() as stack:
        os.dup2(nowhere.fileno(), 1)  # what the program prints
        import torch

        if not torch.cuda.is_available():
            for owner in (torch.Tensor, torch.nn.Module):
                stack.enter_context(patch.object(owner, "cuda", lambda self, *_, **__: self))
        if checkout:
            sys.path.insert(0, checkout)
        stack.enter_context(contextlib.chdir(folder))
        programs: dict[str, Loop] = {"bare": bare, **KDX, **PEERS}
        programs[name](folder, Pace(to))


def versions(checkouts: dict[str, str]) -> dict[str, str]:
    """Return the commit and its date of each checkout."""
    words = ["log", "-1", "--format=%h of %cs"]
    return {
        name: subprocess.run(["git", "-C", at, *words], capture_output=True, text=True, check=False).stdout.strip()
        for name, at in checkouts.items()
    }


def measure(checkouts: dict[str, str], root: Path) -> dict[str, list[float]]:
    """Return the ms per step of each program in each round."""
    running: dict[str, subprocess.Popen[str]] = {}
    for name in ("bare", *KDX, *checkouts):
        folder = root / name.replace(" ", "-")
        folder.mkdir()
        words = [sys.executable, __file__, "--serve", name, checkouts.get(name, ""), str(folder)]
        with (root / f"{folder.name}.log").open("w") as log:
            running[name] = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        answer(name, running[name], root)  # one after the other, so that none trains its teacher while another is measured
    found: dict[str, list[float]] = {name: [] for name in running}
    for number in range(WARM_UP + ROUNDS):
        for name, process in running.items():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            found[name].append(answer(name, process, root))
        print(f"round {number + 1} of {WARM_UP + ROUNDS}", file=sys.stderr)
    for process in running.values():
        process.kill()
    return {name: rounds[WARM_UP:] for name, rounds in found.items()}


def answer(name: str, process: subprocess.Popen[str], root: Path) -> float:
    """Return the ms that a process tells when it is ready again."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        lines = (root / f"{name.replace(' ', '-')}.log").read_text(encoding="utf-8").splitlines()
        sys.exit("\n".join([f"{name} ended:", *lines[-5:]]))
    return float(line)


def main() -> None:
    """Measure and print, or serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", metavar="NAME=FOLDER", help=f"checkouts of {', '.join(PEERS)}")
    parser.add_argument("--to", type=Path, help="file for all numbers as JSON")
    given = parser.parse_args()
    checkouts = {name: str(Path(at).absolute()) for name, _, at in (word.partition("=") for word in given.checkouts)}
    if unknown := set(checkouts) - set(PEERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(checkouts, Path(temporary))
    commits = versions(checkouts)
    print(f"{'program':<14}{'ms a step':>10}  bare / it (quartiles), n = {ROUNDS} rounds of {STEPS} steps")
    for name, rounds in found.items():
        low, middle, high = statistics.quantiles((b / one for b, one in zip(found["bare"], rounds, strict=True)), n=4)
        print(f"{name:<14}{statistics.median(rounds):>10.1f}  {middle:.2f} ({low:.2f}-{high:.2f})  {commits.get(name, '')}")
    if given.to is not None:
        given.to.write_text(json.dumps({"rounds": found, "commits": commits}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    serve(*sys.argv[2:]) if sys.argv[1:2] == ["--serve"] else main()
