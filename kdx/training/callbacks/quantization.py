"""Quantization-aware training: the student learns, and is selected, as it will compute in int8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from kdx.data.splits import stratified_order
from kdx.networks.int8 import Rounding, measured_ranges, put
from kdx.networks.network import Network
from kdx.ranges import Count, Fraction, validated
from kdx.training.datamodule import DataModule
from kdx.training.module import DistillationModule


@validated
class Quantization(Callback):
    """Rounds the student to int8 in validation, and from `start` on in training, as kdx-export format=[onnx_int8] does.

    In training, ranges of activations are those of the batch (of each rank); before each validation they are measured on
    training images, as by kdx-export. So there is nothing to store, and checkpoints, averages of weights and a resume are as
    without; and ranges do not lag behind the weights, for which others let thousands of steps pass before they round. After
    training the student is plain again: metrics.json and student.safetensors are in float32.

    From `freeze_batchnorm` on, BatchNorm uses and keeps its running statistics: rounding would otherwise be learned around
    statistics of batches, which the file does not have.

    Args:
        start: share of the steps after which training rounds; 1: never, but validation does.
        freeze_batchnorm: share of the steps after which statistics of BatchNorm no longer move; 1: never.
        images: number of training images for the ranges, in the proportions of the classes; fewer if there are fewer.

    Reference: Krishnamoorthi, arXiv:1806.08342, which starts from a trained network and freezes BatchNorm late.
    """

    def __init__(self, start: Fraction = 0.1, freeze_batchnorm: Fraction = 0.8, images: Count = 256) -> None:
        self.start, self.freeze_batchnorm, self.images = start, freeze_batchnorm, images
        self.caveats = {"int8": "Selected as int8, by val of the rounded student; these metrics are of its float32 weights."}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        student, done = _student(pl_module)
        put(student, Rounding() if done >= self.start else None)
        if done >= self.freeze_batchnorm:
            for module in student.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure the ranges at the first batch, when all callbacks have put the weights that are validated."""
        if trainer.state.fn == "fit" and batch_idx == 0:
            student, _ = _student(pl_module)
            put(student, Rounding(measured_ranges(student, self._train_images(trainer))))

    def _train_images(self, trainer: pl.Trainer) -> Iterator[Tensor]:
        """Yield training images as the student sees those of val; the same at every call and on every rank."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # not declared
        assert isinstance(data, DataModule)
        labels = data.splits["train"].labels
        every = np.zeros(len(data.splits["train"]), np.int64) if labels is None else labels
        index = np.sort(stratified_order(every, data.seed)[: self.images])
        choose = data.chooser("train", data.observers["val"])
        for part in np.array_split(index, -(-len(index) // data.eval_batch_size)):
            yield choose(0, part).student_images

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        put(_student(pl_module)[0], None)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        put(_student(pl_module)[0], None)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        put(_student(pl_module)[0], None)


def _student(pl_module: pl.LightningModule) -> tuple[Network, float]:
    """Return the student, and which share of the training is done."""
    assert isinstance(pl_module, DistillationModule)
    return pl_module.distiller.student, pl_module.progress.fraction
