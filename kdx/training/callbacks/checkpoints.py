"""Checkpoints: best and last weights, and the random state, for resuming interrupted runs."""

from __future__ import annotations

import functools
import math
import time
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from kdx.ranges import NonNegative, validated
from kdx.training.interruption import Interruption, one_collective_less, stop
from kdx.training.random_state import put_random_state, random_state

AGREED = 16  # batches after which ranks agree on writing a checkpoint, which they wait for each other for
SHARE = 0.02  # of the time that writing checkpoints may take


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
    """Keeps `checkpoints/last.ckpt`, from which the run goes on exactly: at the end of an epoch, or between two steps.

    It is written every `seconds` (0: after every step), or less often, so that writing takes at most 2% of the time; at the end
    of the training; and after SIGINT and SIGTERM, which then end the training. A killed run loses what was trained since.
    Nothing is written after an exception: in the middle of a step, the state is not one from which a run goes on exactly.
    """

    def __init__(self, seconds: NonNegative = 30.0) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, save_on_exception=False, enable_version_counter=False)
        self.seconds = self.pause = seconds
        self.written = -math.inf
        self.interruption = Interruption()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.began = time.monotonic()
        self.interruption.listen()
        one_collective_less(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        every = trainer.accumulate_grad_batches * (AGREED if trainer.world_size > 1 else 1)
        if batches % every == 0 and not trainer.is_last_batch:  # after the last one follows the end of the epoch
            self._write_if_due(trainer, pl_module, since=max(self.written, self.began))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or trainer.global_step >= trainer.max_steps > 0
        self._write_if_due(trainer, pl_module, since=-math.inf if ends else self.written)

    def _write_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, since: float) -> None:
        """Write if it is time to, or a signal was received; all ranks together, as their clocks and signals differ."""
        anywhere = functools.partial(trainer.strategy.reduce_boolean_decision, all=False)
        interrupted, began = self.interruption.received is not None, time.monotonic()
        if not anywhere(interrupted or began - since >= self.pause):
            return
        super().on_train_epoch_end(trainer, pl_module)  # Lightning's way to write one now
        self.written = time.monotonic()
        self.pause = max(self.seconds, (self.written - began) / SHARE) if self.seconds else 0.0
        if anywhere(interrupted):
            stop(trainer)


class RandomState(Callback):
    """Puts torch's, NumPy's and Python's random state in the checkpoint, for dropout and the like; Lightning does not."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return random_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if self.loaded is not None:
            put_random_state(self.loaded)
            self.loaded = None
