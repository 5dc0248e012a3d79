"""Break off runs at random moments and go on; compare with runs that were not broken off: student, numbers and curves, bitwise.

python scripts/checks/faults.py                     every variant, 20 signals each: SIGKILL, SIGTERM and SIGINT in turn
python scripts/checks/faults.py ema dml --signals 5
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums in another order are no fault

import pytorch_lightning  # noqa: F401 - what a run imports late, so that forked processes need not
import timm  # noqa: F401 - as above
import torch._dynamo  # noqa: F401 - as above
from checking import run

import kdx
from kdx.experiment import with_baselines  # noqa: F401 - as above

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
COMMON = (
    "logger=none",
    "trainer=cpu",
    "preflight=off",
    "baselines=[]",
    "callbacks.last.seconds=0.2",
    "trainer.log_every_n_steps=3",
)
SHORT = "teacher.recipe.trainer.max_epochs=2"
STREAMED = ("data.loader=streamed", "data.num_workers=1")
VARIANTS: dict[str, tuple[str, ...]] = {
    "ema": ("experiment=cqkd_digits", SHORT, "callbacks=ema", "trainer.max_epochs=20"),
    "funmatch": ("experiment=funmatch_digits", SHORT, "trainer.max_epochs=8"),
    "ctkd": ("experiment=ctkd_digits", SHORT, "trainer.max_epochs=4"),
    "crd": ("experiment=cqkd_digits", SHORT, "losses=[kl,crd]", "trainer.max_epochs=15"),
    "shampoo": ("experiment=cqkd_digits", SHORT, "optimizer=shampoo", "trainer.max_epochs=10"),
    "dml": ("experiment=dml_digits", "trainer.max_epochs=6"),
    "streamed": ("experiment=cqkd_digits", SHORT, *STREAMED, "trainer.max_epochs=10"),
    "accumulation": (
        "experiment=cqkd_digits",
        SHORT,
        "trainer.accumulate_grad_batches=3",
        "data.batch_size=16",
        "trainer.max_epochs=10",
    ),
}
# What another run of the same command measures otherwise.
TIMED = ("seconds", "teacher_share", "images_per_second", "peak_memory_mb", "latency", "energy", "throughput")


def train(overrides: tuple[str, ...], folder: Path) -> None:
    """Train in a process of its own; what it prints goes to a file beside the folder."""
    file = os.open(f"{folder}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    kdx.train(*overrides, folder=folder, quiet=True)


def attempt(overrides: tuple[str, ...], folder: Path, number: signal.Signals | None, after: float) -> int:
    """Train, and send a signal `after` some seconds unless it ended before. Return the exit code of the process."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(overrides, folder))
    process.start()
    process.join(after if number is not None else None)
    if process.is_alive():
        assert process.pid is not None and number is not None
        os.kill(process.pid, number)
        process.join()
    return process.exitcode or 0


def untimed(content: Any) -> Any:
    """Return the content of metrics.json without what depends on the speed of the machine."""
    report = json.loads(content) if isinstance(content, (str, bytes)) else content
    kept = {key: value for key, value in report.items() if key not in ("cost", "provenance")}
    kept["metrics"] = {name: value for name, value in kept["metrics"].items() if not timed(name)}
    return kept


def curves(file: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without timings."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [{key: value for key, value in row.items() if not timed(key)} for row in csv.DictReader(stream)]


def timed(name: str) -> bool:
    """Return whether the value of this name depends on the speed of the machine."""
    return any(word in name for word in TIMED)


def differences(whole: Path, broken: Path) -> list[str]:
    """Return what differs between two runs."""
    found = []
    if (whole / "student.safetensors").read_bytes() != (broken / "student.safetensors").read_bytes():
        found.append("student.safetensors")
    first, second = (untimed((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (whole, broken))
    found += [f"metrics.json: {key}" for key in first if first[key] != second.get(key) and first[key] == first[key]]
    rows, others = curves(whole / "metrics.csv"), curves(broken / "metrics.csv")
    if rows != others:
        where = next((i for i, pair in enumerate(zip(rows, others, strict=False)) if pair[0] != pair[1]), -1)
        found.append(f"metrics.csv: {len(rows)} and {len(others)} rows; row {where}: {rows[where]} and {others[where]}")
    return found


def check(name: str, root: Path, signals: int, seed: int) -> bool:
    """Train a variant whole and broken off, print how they compare, and return whether they are equal."""
    draw = random.Random(f"{name}{seed}")
    overrides = (*VARIANTS[name], *COMMON, f"outputs={root}/outputs")
    code = attempt(overrides, root / f"{name}-warm", None, 0)  # trains the teacher
    began = time.monotonic()
    code = code or attempt(overrides, root / f"{name}-whole", None, 0)
    seconds = time.monotonic() - began
    if code:
        print(f"{name}: exit code {code}; see {root}/{name}-whole.log")
        return False
    sent = {number.name: 0 for number in SIGNALS}
    folder, rounds = root / f"{name}-broken-0", 0
    while sum(sent.values()) < signals:
        number = SIGNALS[sum(sent.values()) % len(SIGNALS)]
        code = attempt(overrides, folder, number, draw.uniform(0.1, 0.7) * seconds)
        if code == 0:  # it ended before the signal
            found = differences(root / f"{name}-whole", folder)
            if found:
                break
            rounds += 1
            folder = root / f"{name}-broken-{rounds}"
            continue
        sent[number.name] += 1
    code = attempt(overrides, folder, None, 0)
    found = differences(root / f"{name}-whole", folder) if code == 0 else [f"exit code {code}"]
    told = ", ".join(f"{count} {signal_name}" for signal_name, count in sent.items())
    result = f"DIFFERENT: {found}" if found else "equal"
    print(f"{name}: {result} after {told} in {rounds + 1} runs of {seconds:.1f} s", flush=True)
    return not found


def variants(root: Path, given: argparse.Namespace) -> bool:
    """Check the chosen variants."""
    equal = [check(name, root, given.signals, given.seed) for name in given.variants]  # all of them, also after a difference
    return all(equal)


def main() -> None:
    """Check them as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--signals", type=int, default=20, help="per variant")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    run(parser, variants)


if __name__ == "__main__":
    main()
