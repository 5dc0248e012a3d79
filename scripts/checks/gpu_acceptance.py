"""Is kdx as it should be on a GPU? Each check is PASS, FAIL or NOT AVAILABLE, with its number. Needs no data and no network.

python scripts/gpu_acceptance.py --to gpu.json
python scripts/gpu_acceptance.py --cpu-rehearsal      # the same code with tiny sizes, on the CPU: shows that it runs
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from checks.host_syncs import during_steps, interrupted_at
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors.torch import load_file
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

import kdx
from kdx.benchmarks import data_path, machine
from kdx.benchmarks.session import step_flops
from kdx.networks.compiled import compile_in_place, missing_compiler
from kdx.networks.network import Network
from kdx.training.batchnorm import GlobalBatchNorm

COMMON = (
    *("experiment=none", "data=glyphs", "losses=[kl]", "temperature=constant", "temperature.value=4", "logger=none"),
    *("baselines=[]", "preflight=off", "test=false", "callbacks.last.seconds=3600", "trainer.limit_val_batches=1"),
    *("teacher.recipe.trainer.max_epochs=1", "teacher.recipe.trainer.limit_train_batches=2", "trainer.max_epochs=1"),
)
PASS, FAIL, MISSING = "PASS", "FAIL", "NOT AVAILABLE"


class NotAvailableError(Exception):
    """A check that this machine cannot do; the message has the reason."""


@dataclass(frozen=True)
class Sizes:
    """How large the checks are: on a GPU, or in the rehearsal on a CPU."""

    side: int
    batch: int
    steps: int
    bit: tuple[str, str, int, int]  # teacher, student, side in px, batch
    images: int  # of a decoder


REAL = Sizes(32, 512, 110, ("resnetv2_152x2_flax", "resnetv2_50x1_flax", 224, 64), 512)
TINY = Sizes(16, 8, 14, ("resnetv2_50x1_flax", "resnetv2_50x1_flax", 32, 2), 8)


class Checks:
    """The checks, each a method that returns whether it passed and its number in words. AssertionError and others fail it."""

    def __init__(self, root: Path, sizes: Sizes, device: str) -> None:
        self.root, self.sizes, self.device, self.count = root, sizes, torch.device(device), 0

    def train(self, *words: str, folder: str = "") -> kdx.Run:
        """Train resnet56 -> 20, unless the words say otherwise, in a folder of its own or in `folder`."""
        self.count += 1
        size = self.sizes
        network = ("network@student=cifar_resnet20", "teacher.network.architecture=cifar_resnet56")
        images = size.batch * size.steps
        pixels = (f"data.source.size={size.side}", f"data.source.train={images}", f"data.batch_size={size.batch}")
        sides = (
            f"resolution.teacher={size.side}",
            f"resolution.student={size.side}",
            "data.source.val=64",
            "data.source.test=64",
        )
        where = ("trainer=cpu",) if self.device.type == "cpu" else ("trainer.accelerator=gpu",)
        at = self.root / (folder or f"run-{self.count}")
        return kdx.train(*COMMON, *network, *pixels, *sides, *where, *words, f"outputs={self.root}", folder=at, quiet=True)

    def bf16(self) -> tuple[bool, str]:
        """A run in bf16 has a finite loss, and a network's logits are those in float32, within 5 % of the largest."""
        loss = self.train("trainer.precision=bf16-mixed").metrics["val/kl"]
        network = Network("cifar_resnet56", 10).to(self.device).eval()
        images = torch.rand(8, 3, self.sizes.side, self.sizes.side, device=self.device)
        with torch.no_grad():
            expected = network(images)
            with torch.autocast(self.device.type, torch.bfloat16):
                found = network(images).float()
        apart = float((found - expected).abs().max() / expected.abs().max())
        return apart < 0.05 and math.isfinite(loss), f"logits differ by {apart:.1%} of the largest"

    def channels_last(self) -> tuple[bool, str]:
        """speed=safe gives the weights of speed=exact up to rounding; its speed is told."""
        runs = [self.train(f"speed={speed}") for speed in ("exact", "safe")]
        one, other = (load_file(run.path / "student.safetensors") for run in runs)
        apart = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
        rates = [run.metrics["images_per_second"] for run in runs]
        return apart < 0.1, f"{rates[1] / rates[0]:.2f} x speed=exact, weights differ by {apart:.1g}"

    def nccl(self) -> tuple[bool, str]:
        """One rank: a sum over all ranks is the tensor itself, and SyncBatchNorm is BatchNorm."""
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{self.root}/group", rank=0, world_size=1)
        try:
            value = torch.arange(8.0, device=self.device)
            dist.all_reduce(value)
            plain = Network("cifar_resnet8", 10).to(self.device).train()
            images = torch.rand(16, 3, 32, 32, device=self.device)
            expected = plain(images).detach()
            found = GlobalBatchNorm().apply(plain)(images).detach()
        finally:
            dist.destroy_process_group()
        apart = float((found - expected).abs().max())
        return bool(value.sum() == 28) and apart < 1e-4, f"{backend}; logits with BatchNorm over ranks differ by {apart:.1g}"

    def no_host_sync(self) -> tuple[bool, str]:
        """No operation makes the host wait for the device in 100 steps between two points of the curves."""
        with during_steps(8, self.sizes.steps - 2, self.device) as syncs:
            self.train("trainer.log_every_n_steps=1000000")
        return not syncs.found, ", ".join(dict.fromkeys(syncs.found)) or f"none in {self.sizes.steps - 10} steps"

    def resume(self) -> tuple[bool, str]:
        """A run that is interrupted and goes on has the weights of one that was not, up to float noise."""
        whole = self.train("trainer.max_epochs=2")
        with interrupted_at(self.sizes.steps // 2):
            self.train("trainer.max_epochs=2", folder="broken")
        again = self.train("trainer.max_epochs=2", folder="broken")
        one, other = (load_file(run.path / "student.safetensors") for run in (whole, again))
        apart = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
        return apart < 1e-3, f"weights differ by {apart:.1g}"

    def renderer(self) -> tuple[bool, str]:
        """Images/s of the renderer."""
        rows = [f"{what}: {result}" for what, result, _ in data_path.render_rows(self.device.type)]
        return True, "; ".join(rows)

    def nvjpeg(self) -> tuple[bool, str]:
        """Images/s of torchvision's decoder on the device, 500 x 375 px."""
        image = (torch.rand(3, 12, 16) * 255).to(torch.uint8).repeat_interleave(32, 1).repeat_interleave(32, 2)
        files = [encode_jpeg(image) for _ in range(self.sizes.images)]
        try:
            seconds = data_path.best(lambda: decode_jpeg(files, ImageReadMode.RGB, device=str(self.device)), 3)
        except RuntimeError as error:
            raise NotAvailableError(str(error).splitlines()[0]) from error
        return True, f"{len(files) / seconds:,.0f} images/s"

    def resnet56(self) -> tuple[bool, str]:
        """Images/s, MFU and energy of resnet56 -> 20 in bf16."""
        return True, self._speed(
            self.train("trainer.precision=bf16-mixed"), "cifar_resnet56", "cifar_resnet20", self.sizes.side
        )

    def bit(self) -> tuple[bool, str]:
        """Images/s, MFU and energy of BiT R152x2 -> R50x1 in bf16."""
        teacher, student, side, batch = self.sizes.bit
        words = ("network@student=bit_r50x1", f"teacher.network.architecture={teacher}", f"data.batch_size={batch}")
        sides = (f"resolution.teacher={side}", f"resolution.student={side}", f"data.source.train={batch * self.sizes.steps}")
        return True, self._speed(self.train(*words, *sides, "trainer.precision=bf16-mixed"), teacher, student, side)

    def compiled(self) -> tuple[bool, str]:
        """torch.compile of both networks: the same logits, warm-up and break-even."""
        lacks = missing_compiler(self.device.type)
        if lacks is not None:
            raise NotAvailableError(lacks)
        size, told, right = self.sizes, [], True
        images = torch.rand(size.batch, 3, size.side, size.side, device=self.device)
        for name in ("cifar_resnet56", "cifar_resnet20"):
            network = Network(name, 10).to(self.device).eval()
            run = torch.no_grad()(lambda network=network: network(images))
            expected = run()
            trial = compile_in_place(network, [run])
            right &= torch.allclose(run(), expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
            speed = trial.plain_ms / trial.compiled_ms
            told.append(f"{name}: {trial.warm_up_seconds:.0f} s, {speed:.2f} x, pays after {trial.pays_after:,.0f} batches")
        return right, "; ".join(told)

    def energy(self) -> tuple[bool, str]:
        """Joules of a run, if NVML is available."""
        joules = self.train().metrics.get("energy_joules")
        if joules is None:
            raise NotAvailableError("NVML, or nvidia-ml-py (pip install kdx[energy])")
        return joules > 0, f"{joules:,.0f} J in {self.sizes.batch * self.sizes.steps:,} images"

    def _speed(self, run: kdx.Run, teacher: str, student: str, side: int) -> str:
        rate, peak = run.metrics["images_per_second"], machine.peak_flops()
        named = {"student": student, "teacher": teacher}
        flops = step_flops(
            {role: {"architecture": one, "num_classes": 10, "shape": [1, 3, side, side]} for role, one in named.items()}
        )
        mfu = "not measured" if peak is None else f"{rate * flops / peak:.1%}"
        return f"{rate:,.0f} images/s, {rate * flops / 1e12:,.2f} TFLOP/s, MFU {mfu}"


ORDER = (
    *("bf16", "channels_last", "nccl", "no_host_sync", "resume", "renderer", "nvjpeg", "resnet56", "bit", "compiled"),
    "energy",
)


@dataclass(frozen=True)
class Result:
    """A check by name: its verdict, its number in words, and how long it took, s."""

    name: str
    verdict: str
    told: str
    seconds: float


def results(checks: Checks, names: tuple[str, ...] = ORDER) -> Iterator[Result]:
    """Do the checks in turn; what one of them raises is its failure."""
    for name in names:
        began = time.perf_counter()
        check: Callable[[], tuple[bool, str]] = getattr(checks, name)
        try:
            right, told = check()
            verdict = PASS if right else FAIL
        except NotAvailableError as error:
            verdict, told = MISSING, str(error)
        except Exception as error:
            verdict, told = FAIL, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        yield Result(name, verdict, told, time.perf_counter() - began)


def main() -> None:
    """Do the checks, print their table, and exit with status 1 if one failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", default=list(ORDER), metavar="CHECK", help=", ".join(ORDER))
    parser.add_argument("--cpu-rehearsal", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--to", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.cpu_rehearsal:
        print("This machine has no GPU: run the script on one, or its code with --cpu-rehearsal", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("WANDB_MODE", "offline")
    table, found = Table("check", "verdict", "result", "seconds"), []
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(Path(folder), *((TINY, "cpu") if given.cpu_rehearsal else (REAL, "cuda")))
        for result in results(checks, tuple(given.checks)):
            print(f"{result.name}: {result.verdict}", flush=True)
            table.add_row(result.name, result.verdict, escape(result.told), f"{result.seconds:.0f}")
            found.append(result)
    about: dict[str, Any] = {"machine": machine.describe(), "rehearsal": given.cpu_rehearsal}
    Console(width=160).print(tables_line(about), table)
    if given.to is not None:
        given.to.write_text(json.dumps({**about, "checks": [asdict(one) for one in found]}, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if any(one.verdict == FAIL for one in found) else 0)


def tables_line(about: dict[str, Any]) -> str:
    """Return where the checks ran, in one line."""
    where = "a rehearsal on a CPU: no number counts" if about["rehearsal"] else ", ".join(about["machine"]["gpus"])
    return f"{where}; torch {about['machine']['versions']['torch']}"
