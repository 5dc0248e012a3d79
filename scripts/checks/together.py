"""How much time does launcher=together save? Four students of one teacher in lock-step and one after the other, as JSON.

Both sweeps do the same work in one process each, ordered ABBA, so a machine that drifts slows down both. The processors' time
is given besides the wall time, on which other work on the machine has less influence.

python scripts/checks/together.py
python scripts/checks/together.py --epochs 5 --to together.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kdx.benchmarks.request import words_of

STUDENTS = "optimizer.lr=0.01,0.02,0.05,0.1"
# Threads that wait for each other would waste what other work on the machine takes from one of them.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
LAUNCHERS = ("basic", "together", "together", "basic")


def seconds(words: list[str]) -> tuple[float, float]:
    """Return the wall time of a command, and the time of the processors."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "kdx.cli.train", *words], check=True, capture_output=True, env=ONE_THREAD)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure both launchers, and print the times with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2, help="of each student, 40 steps of 64 images each")
    parser.add_argument("--to", type=Path, help="file for the numbers")
    given = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {launcher: [] for launcher in LAUNCHERS}
    with tempfile.TemporaryDirectory() as folder:
        words = words_of("resnet56", [f"outputs={folder}"])
        seconds([*words, f"hydra.run.dir={folder}/teacher", "trainer.max_epochs=1", "trainer.limit_train_batches=1"])
        for number, launcher in enumerate(LAUNCHERS):
            own = [f"trainer.max_epochs={given.epochs}", STUDENTS, f"launcher={launcher}", f"hydra.sweep.dir={folder}/{number}"]
            times[launcher].append(seconds(["-m", *words, *own]))
            print(launcher, *(f"{value:.1f} s" for value in times[launcher][-1]), f"load {os.getloadavg()[0]:.1f}", flush=True)
    wall, processor = ([sum(one[i] for one in times[name]) for name in ("together", "basic")] for i in (0, 1))
    found = {"times": times, "wall": wall[0] / wall[1], "processor": processor[0] / processor[1]}
    print(f"together / one after the other: wall {found['wall']:.2f}, processor {found['processor']:.2f}")
    if given.to is not None:
        given.to.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
