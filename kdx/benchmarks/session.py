"""A session of kdx-benchmark: all settings in turn, their tables, and the numbers as JSON."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from kdx.benchmarks import classes, data_path, machine, tables
from kdx.benchmarks.request import KEPT, PARTS, RUNS, VARIANTS, BenchmarkRequest
from kdx.benchmarks.runs import Setting
from kdx.costs.counts import macs
from kdx.networks.network import Network
from kdx.run.files import replacing

ROWS: dict[str, Callable[[], Iterator[tuple[str, str, str]]]] = {"data": data_path.rows, "classes": classes.rows}
assert tuple(ROWS) == PARTS


@dataclass
class Measured:
    """The numbers of a setting that is a run.

    Args:
        variants: What `BareLoop` measured, by variant.
        start_seconds: From the start of a process to the first step: of kdx, the median of its runs; of the bare loop.
        memory_mb: Peak of a process (on a GPU, of its memory): of a run without the bare loop; of the bare loop alone.
        images_per_second: In training, by the number of processes; of runs without the bare loop.
        step_flops: Of the networks in one step, forward and backward; see `kdx.costs.counts`.
        kernel_flops: FLOP/s of the fixed kernel, before and after.
    """

    variants: dict[str, dict[str, Any]]
    start_seconds: dict[str, float]
    memory_mb: dict[str, float]
    images_per_second: dict[int, float]
    step_flops: float
    kernel_flops: tuple[float, float]


def benchmark(request: BenchmarkRequest) -> None:
    """Measure what is requested, print tables, and write the numbers; if it is broken off, those that there are."""
    console = Console(width=None if Console().is_terminal else 160)
    about = machine.describe()
    console.print(tables.machine_line(about))
    runs: dict[str, Measured] = {}
    parts: dict[str, list[tuple[str, str, str]]] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in (name for name in (*RUNS, *PARTS) if name in request.settings):
                console.print(f"measuring {name} ...", style="dim")
                if name in RUNS:
                    runs[name] = measure(Setting(name, request.words, Path(folder)), request)
                else:
                    parts[name] = list(ROWS[name]())
                if request.file is not None:
                    plain = {name: asdict(one) for name, one in runs.items()}
                    numbers = {"machine": about, "words": request.words, "runs": plain, **parts}
                    with replacing(request.file) as draft:
                        draft.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    finally:
        if runs:
            console.print(tables.steps(runs), tables.processes(runs, machine.peak_flops()))
        for name, rows in parts.items():
            console.print(tables.parts(name, rows))


def measure(setting: Setting, request: BenchmarkRequest) -> Measured:
    """Return the numbers of one setting; each run and each bare loop has a process of its own."""
    if setting.name == "resnet34":
        jpegs(setting.root / "images")
    before = machine.kernel_flops()
    setting.train(("trainer.max_epochs=1", *VARIANTS["safe"]))  # trains the teacher, compiles byte code, fills the disk's cache
    alone = setting.train(VARIANTS[KEPT if KEPT in request.variants else "safe"])
    variants = {name: setting.beside_bare(VARIANTS[name]) for name in VARIANTS if name in request.variants}
    networks = next(iter(variants.values()))["networks"]
    bare = setting.bare_alone(networks)
    speeds = {1: alone["images_per_second"]}
    if request.ranks > 1:
        on_cpu = () if torch.cuda.is_available() else ("trainer.accelerator=cpu",)
        ranks = ("trainer.strategy=ddp", f"trainer.devices={request.ranks}", *on_cpu)
        speeds[request.ranks] = setting.train((*VARIANTS["safe"], *ranks))["images_per_second"]
    return Measured(
        variants,
        {
            "kdx": statistics.median(found["start_seconds"] for found in variants.values()),
            "bare": bare["start_seconds"],
        },
        {"kdx": alone["peak_memory_mb"], "bare": bare["peak_memory_mb"]},
        speeds,
        step_flops(networks),
        (before, machine.kernel_flops()),
    )


def step_flops(networks: dict[str, dict[str, Any]]) -> float:
    """Return the FLOPs of one step: the teacher's forward, the student's forward, and its backward as two of these."""
    total = 0.0
    for role, about in networks.items():
        batch, channels, side, _ = about["shape"]
        network = Network(about["architecture"], about["num_classes"], channels)
        passes = 3 if role == "student" else 1
        total += 2.0 * passes * batch * macs(network, (channels, side, side))
    return total


def jpegs(root: Path) -> None:
    """Write 4 classes of JPEG files of 500 x 375 px."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 320), ("val", 16)):
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
            file = root / split / f"class{i % 4}" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse.save(file, quality=90)
