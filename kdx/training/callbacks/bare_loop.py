"""A bare PyTorch loop on the same work, in turn with a run's own steps, so that both see the same state of the machine."""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torchvision import transforms

from kdx.networks.network import Network
from kdx.teachers.teacher import OnlineTeacher
from kdx.training.bare_step import Pictures, bare_batches, bare_step
from kdx.training.datamodule import DataModule
from kdx.training.module import DistillationModule
from kdx.types import Batch, Pair
from kdx.views.crops import Crop, Inception, Pad

WARM_UP = 5  # steps that are not counted
# A step in the order of its parts: what is between two marks, and the share to which it counts. The teacher's kept logits are
# read before the student runs, its own are computed after it.
PARTS = ("data", "teacher", "student", "teacher", "loss", "backward", "optimizer", "rest")


class BareLoop(Callback):
    """Times each step of a run, and after it a step of a bare loop: data, teacher, student, KL divergence, backward, optimizer.

    The bare loop has copies of the plain networks in PyTorch's own layout and the run's optimizer; its data are the run's
    images through torchvision's crop and flip, and mixup if the run mixes, in the same process. It logs and validates nothing.
    At the end of training, the numbers are written to `file`: medians in ms; the median of ratios bare / kdx with its
    quartiles, for the bare step with its data (`ratio_with_data`) and on images that are there (`ratio`), while that of kdx
    always has its data; the shares of the run's parts, what the networks are, and the seconds from `began` (Unix time, by
    default that of this object) to the first step. "data" is loading and rendering with Lightning's overhead between steps,
    "rest" is logging. First steps and those of a new epoch do not count. For one process, and for one teacher or none.
    """

    def __init__(self, file: str, began: float | None = None) -> None:
        self.file, self.start = Path(file), time.time() if began is None else began
        self.start_seconds = 0.0
        self.step: Callable[[Tensor, Tensor], Tensor] | None = None
        self.batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self.networks: dict[str, Any] = {}
        self.hooks: list[Any] = []
        self.began = 0.0
        self.marks: list[float] = []
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.with_data: list[float] = []
        self.parts: list[list[float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        if self.step is None:
            self.start_seconds = time.time() - self.start
            assert isinstance(pl_module, DistillationModule)
            self.step = step_beside(pl_module, batch)
            data: DataModule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
            self.batches = batches_beside(data, len(batch), pl_module.device)
            self.networks = networks_of(pl_module, batch, data.observers["train"].resolution)
            student, objective, optimizer = pl_module.distiller.student, pl_module.objective, trainer.optimizers[0]
            self.hooks = [
                student.register_forward_pre_hook(self._mark),
                student.register_forward_hook(self._mark),
                objective.register_forward_pre_hook(self._mark),
                optimizer.register_step_post_hook(self._mark),
            ]
        self.marks = [_now()]

    def on_before_backward(self, *_: Any) -> None:
        self._mark()

    def on_after_backward(self, *_: Any) -> None:
        self._mark()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        ended = _now()
        assert self.step is not None
        with torch.random.fork_rng():  # the run draws what it would draw alone
            began = _now()
            images, seen = next(self.batches)
            loaded = _now()
            self.step(images, seen)
        stepped = _now()
        if self.began and batch_idx:
            self.ours.append(ended - self.began)
            self.bare.append(stepped - loaded)
            self.with_data.append(stepped - began)
            marks = [self.began, *self.marks, ended]
            self.parts.append([after - before for before, after in pairwise(marks)])
        self.began = _now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for hook in self.hooks:
            hook.remove()
        ours, bare, with_data = (seconds[WARM_UP:] for seconds in (self.ours, self.bare, self.with_data))
        if len(ours) < 2:
            raise ValueError(f"{len(self.ours)} steps are too few to be measured: train {WARM_UP + 3} or more in an epoch")
        (low, middle, high), (low_too, too, high_too) = (
            statistics.quantiles((b / a for a, b in zip(ours, theirs, strict=True)), n=4) for theirs in (bare, with_data)
        )
        shares = dict.fromkeys(PARTS, 0.0)
        for name, seconds in zip(PARTS, zip(*self.parts[WARM_UP:], strict=True), strict=True):
            shares[name] += sum(seconds) / sum(ours)
        numbers = {
            "steps": len(ours),
            "kdx_ms": statistics.median(ours) * 1e3,
            "bare_ms": statistics.median(bare) * 1e3,
            "ratio": middle,
            "quartiles": [low, high],
            "bare_with_data_ms": statistics.median(with_data) * 1e3,
            "ratio_with_data": too,
            "quartiles_with_data": [low_too, high_too],
            "shares": shares,
            "start_seconds": self.start_seconds,
            "networks": self.networks,
        }
        self.file.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")

    def _mark(self, *_: Any) -> None:
        """Add the present time to the marks of this step. As a hook, it returns None, which changes nothing."""
        self.marks.append(_now())


def step_beside(module: DistillationModule, batch: Batch) -> Callable[[Tensor, Tensor], Tensor]:
    """Return one step of the bare loop; the labels of this batch teach if there is no teacher."""
    distiller = module.distiller

    def plain(network: Network) -> Network:
        return copy.deepcopy(network).to(memory_format=torch.contiguous_format)

    student = plain(distiller.student).train()
    teacher = plain(distiller.teacher.network) if isinstance(distiller.teacher, OnlineTeacher) else None
    target = batch.label if batch.mixed_target is None else batch.mixed_target
    return bare_step(student, teacher, module.make_optimizer(student.parameters()), target)


def batches_beside(data: DataModule, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of the run's training images with the views of the run, for the bare loop."""
    observer = data.observers["train"]
    resolution, crop = observer.resolution, getattr(observer.policy, "crop", None)
    flip = [transforms.RandomHorizontalFlip()] if observer.flip else []
    steps = [*cropping(crop, resolution.teacher), *flip, transforms.ToTensor()]
    pictures = Pictures(data.splits["train"], transforms.Compose(steps))  # type: ignore[arg-type]  # Images are a sequence of arrays
    return bare_batches(pictures, batch_size, resolution.student, observer.mixing is not None, device)


def cropping(crop: Crop | None, px: int) -> list[Any]:
    """Return the transforms of torchvision that crop and resize to `px` as `crop` does."""
    if isinstance(crop, Inception):
        return [transforms.RandomResizedCrop(px, tuple(crop.area), tuple(crop.aspect))]
    resize = transforms.Resize((px, px))
    return [resize, transforms.RandomCrop(px, padding=round(crop.fraction * px))] if isinstance(crop, Pad) else [resize]


def networks_of(module: DistillationModule, batch: Batch, resolution: Pair) -> dict[str, Any]:
    """Return what the bare loop computes, as plain data: architectures, classes, and the shapes [B,C,R,R] of their images."""
    distiller = module.distiller
    found = {"student": (distiller.student, resolution.student)}
    if isinstance(distiller.teacher, OnlineTeacher):
        found["teacher"] = (distiller.teacher.network, resolution.teacher)
    size = batch.student_images.shape[:2]
    return {
        role: {"architecture": network.architecture, "num_classes": network.num_classes, "shape": [*size, px, px]}
        for role, (network, px) in found.items()
    }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
