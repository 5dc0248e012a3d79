"""Runs and bare loops in processes of their own, so that start-up and memory are those of nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdx.benchmarks.request import words_of

LAST_LINES = 5  # of a failed process that are told


class BenchmarkError(RuntimeError):
    """A process of the benchmark failed; the message has its last lines."""


def in_process(module: str, *arguments: str) -> None:
    """Run a module in a process of its own. BenchmarkError if it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise BenchmarkError("\n".join([f"{module} {' '.join(arguments)} failed:", *lines[-LAST_LINES:]]))


class Setting:
    """A setting that is a run: its processes share one folder, in which teachers, images and kept logits are."""

    def __init__(self, name: str, words: Sequence[str], root: Path) -> None:
        self.name, self.words, self.root = name, list(words), root
        self.count = 0

    def train(self, variant: Sequence[str]) -> dict[str, Any]:
        """Return the final metrics of a run of this setting."""
        self.count += 1
        folder = self.root / f"{self.name}-{self.count}"
        place = (f"hydra.run.dir={folder}", f"outputs={self.root}/outputs")
        root = [f"data.root={self.root}/images"] if "data=imagefolder" in words_of(self.name) else []
        in_process("kdx.cli.train", *words_of(self.name, self.words), *variant, *root, *place)
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        return metrics

    def beside_bare(self, variant: Sequence[str]) -> dict[str, Any]:
        """Return what a run measured of its steps beside the bare loop; see `BareLoop`."""
        file = self.root / f"{self.name}-steps.json"
        bare = f"{{_target_: kdx.training.callbacks.bare_loop.BareLoop, file: '{file}', began: {time.time()}}}"
        self.train([*variant, f"+callbacks.bare={bare}"])
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def bare_alone(self, networks: dict[str, Any]) -> dict[str, float]:
        """Return start-up and memory of a process that holds the bare loop alone; see `kdx.benchmarks.bare_process`."""
        file = self.root / f"{self.name}-bare.json"
        in_process("kdx.benchmarks.bare_process", json.dumps(networks), str(file), str(time.time()))
        found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        return found
