"""Distillation by Kullback-Leibler divergence."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.scalars import validated
from kdx.types import Outputs


@validated
class KL(Loss):
    """KL(teacher || student) in nats per example [B] at the step's temperature τ, times τ² unless switched off."""

    needs_teacher = True
    needs_temperature = True

    def __init__(self, tau_squared: bool = True) -> None:
        super().__init__()
        self.tau_squared = tau_squared

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None and outputs.temperature is not None
        return functional.kl(outputs.student_logits, outputs.teacher_logits, outputs.temperature, self.tau_squared)
