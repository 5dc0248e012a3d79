"""How long the steps and the validations of a run take: kdx-plan computes from them how long a whole run takes."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn

WARM_UP = 5  # batches that are slower than those that follow


class Pace(Callback):
    """Writes to `file` the seconds of the whole training, per batch, and per validation, and the numbers of both.

    Seconds per batch are those from one batch to the next without validation, after a warm-up: with loading, rendering, logging
    and checkpoints. Seconds per validation are the median without the first, which renders images and runs the teacher.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.began = self.val_began = 0.0
        self.ends: list[float] = []
        self.validations: list[float] = []
        self.before: list[float] = []  # seconds of validation before the end of each batch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())
        self.before.append(sum(self.validations))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.val_began = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.validations.append(time.perf_counter() - self.val_began)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.ends:
            return
        first = min(WARM_UP, len(self.ends)) - 1
        batches = len(self.ends) - 1 - first
        seconds = self.ends[-1] - self.ends[first] - (self.before[-1] - self.before[first])
        whole = time.perf_counter() - self.began
        pace = {
            "seconds": whole,
            "batches": len(self.ends),
            "per_batch": seconds / batches if batches else whole / len(self.ends),
            "validations": len(self.validations),
            "per_validation": statistics.median(self.validations[1:] or self.validations or [0.0]),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(pace), encoding="utf-8")
