"""Exponential moving average (EMA) of the student's weights, used in validation and by `selection=ema`."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kdx.ranges import Fraction, validated

STUDENT = "distiller.student."  # prefix of the student in the module's state_dict


@validated
class EMA(Callback):
    """Exponential moving average of the student: average ← decay · average + (1 - decay) · weights after each optimizer step.

    `warmup` limits the decay in update t to (1 + t) / (10 + t), so that initial weights do not dominate the average of a short
    run. BatchNorm's running statistics are averaged like weights; integer buffers, such as counters, are copied. Validation
    uses the average. In a checkpoint, `state_dict` holds the average and `averaging` the weights from which training resumes.
    Lightning's EMAWeightAveraging would also average a learned temperature and the losses' projectors, copy the teacher, and
    replace the selected weights with the average in every validation.
    """

    def __init__(self, decay: Fraction = 0.999, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self.average: dict[str, Tensor] = {}
        self.trained: dict[str, Tensor] | None = None  # the student's weights, while validation uses the average
        self.updates = self.step = 0

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if "averaging" in checkpoint:  # without it, the average starts with the current weights
            saved = checkpoint["state_dict"].items()
            self.average = {name.removeprefix(STUDENT): value for name, value in saved if name.startswith(STUDENT)}
            self.updates = checkpoint["averaging"]["updates"]
            _student(pl_module).load_state_dict(checkpoint["averaging"]["student"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, value in _weights(pl_module).items():
            self.average[name] = self.average.get(name, value).to(value.device, copy=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if trainer.global_step > self.step:  # gradients may be accumulated over several batches
            self.step = trainer.global_step
            self._update(_weights(pl_module))

    def _update(self, weights: dict[str, Tensor]) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        moving = [name for name, value in weights.items() if value.is_floating_point()]
        get_ema_multi_avg_fn(decay)([self.average[name] for name in moving], [weights[name] for name in moving], self.updates)
        for name in weights.keys() - set(moving):
            self.average[name].copy_(weights[name])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            weights = _weights(pl_module)
            self.trained = {name: value.clone() for name, value in weights.items()}
            _copy(self.average, weights)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.trained is not None:
            _copy(self.trained, _weights(pl_module))
            self.trained = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store average and weights, also if validation is interrupted."""
        trained = (
            self.trained if self.trained is not None else {name: value.clone() for name, value in _weights(pl_module).items()}
        )
        checkpoint["averaging"] = {"updates": self.updates, "student": trained}
        checkpoint["state_dict"] |= {STUDENT + name: value for name, value in self.average.items()}

    def put(self, pl_module: pl.LightningModule) -> None:
        """Replace the student's weights by the average."""
        _copy(self.average, _weights(pl_module))


def _student(pl_module: pl.LightningModule) -> nn.Module:
    return pl_module.get_submodule(STUDENT.rstrip("."))


def _weights(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """Return the student's parameters and buffers, not copies."""
    return dict(_student(pl_module).state_dict())


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
