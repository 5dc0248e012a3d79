"""Distillation by the distance between logits."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.types import Outputs


class MSE(Loss):
    """Mean squared difference of the logits over the K classes, per example [B]; independent of the temperature."""

    needs_teacher = True

    def __init__(self) -> None:  # explicit, because `kdx.config.signatures` does not read signatures of base classes in torch
        super().__init__()

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None
        return functional.mean_squared_error(outputs.student_logits, outputs.teacher_logits)
