"""Checkpoints that a cut-off run goes on from."""

from __future__ import annotations

import random
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from kdx.training.telemetry import NonFiniteLossError


class Best(ModelCheckpoint):
    """Keeps `checkpoints/best.ckpt` in the run's folder: the first epoch with the best `monitor`, a metric of val."""

    def __init__(self, monitor: str, mode: Literal["min", "max"] = "max") -> None:
        super().__init__(
            filename="best", monitor=monitor, mode=mode, save_on_train_epoch_end=True, enable_version_counter=False
        )


class Last(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt`: the end of the last whole epoch, or the step at which the run was interrupted.

    A run whose loss became NaN is not saved over the last good checkpoint.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, save_on_exception=True, enable_version_counter=False)

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
