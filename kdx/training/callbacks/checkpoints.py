"""Checkpoints: best and last weights, and the random state, for resuming interrupted runs."""

from __future__ import annotations

import math
import random
import time
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from kdx.ranges import NonNegative, validated
from kdx.training.telemetry import NonFiniteLossError


def after_bad_loss(trainer: pl.Trainer, step: int) -> str:
    """Return what to do after a loss that is not finite at `step`: the last checkpoint, if any, and settings to change."""
    paths = [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
    path = next((path for path in reversed(paths) if path), None)
    if step == 0:
        return (
            "No step was taken before, so optimizer.lr is not the cause: try trainer.precision=32-true, and check the "
            "normalization (student.mean, student.std), the initial weights (student.init), the teacher and your own losses"
        )
    last = f"The last good checkpoint is {path}" if path else "No checkpoint was written before"
    return f"{last}; try a lower optimizer.lr, or trainer.gradient_clip_val=1.0"


class Moving(ModelCheckpoint):
    """ModelCheckpoint that keeps its best score if the run is resumed in another folder; Lightning discards it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class Best(Moving):
    """Keeps `checkpoints/best.ckpt` in the run's folder: the first epoch with the best `monitor`, a metric of val."""

    def __init__(self, monitor: str, mode: Literal["min", "max"] = "max") -> None:
        super().__init__(
            filename="best", monitor=monitor, mode=mode, save_on_train_epoch_end=True, enable_version_counter=False
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = trainer.check_val_every_n_epoch or 1
        if (trainer.current_epoch + 1) % every == 0 and self.monitor in trainer.callback_metrics:  # else nothing is new
            super().on_train_epoch_end(trainer, pl_module)


@validated
class Last(Moving):
    """Keeps `checkpoints/last.ckpt`: the end of the last whole epoch, or the step at which the run was interrupted.

    Where epochs are short it is written every `seconds` only, so that is what a crash may cost; the last epoch always is. A run
    whose loss became NaN is not saved over the last good checkpoint.
    """

    def __init__(self, seconds: NonNegative = 30.0) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, save_on_exception=True, enable_version_counter=False)
        self.seconds, self.written = seconds, -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or trainer.global_step >= trainer.max_steps > 0
        due = time.monotonic() - self.written >= self.seconds
        if trainer.strategy.reduce_boolean_decision(ends or due, all=False):  # ranks save together
            self.written = time.monotonic()
            super().on_train_epoch_end(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, NonFiniteLossError) and trainer.global_step > 0:
            super().on_exception(trainer, pl_module, exception)


class RandomState(Callback):
    """Puts torch's, NumPy's and Python's random state in the checkpoint, for dropout and the like; Lightning does not."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        numpy: Any = np.random.get_state()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [torch.from_numpy(np.asarray(numpy[1]).astype(np.int64)), *numpy[2:]],
            "python": random.getstate(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if self.loaded is None:
            return
        state, self.loaded = self.loaded, None
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
        keys, *rest = state["numpy"]
        np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
