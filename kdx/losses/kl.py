"""Distillation by a divergence between the teacher's and the student's probabilities."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import validated
from kdx.types import Outputs

DIVERGENCES = {
    "forward": functional.kl,
    "reverse": functional.reverse_kl,
    "symmetric": functional.symmetric_kl,
    "js": functional.jensen_shannon,
}


@validated
class KL(Loss):
    """Divergence between teacher and student in nats per example [B] at the step's temperature τ, times τ² if `tau_squared`.

    `direction` is forward: KL(teacher || student), reverse: KL(student || teacher), symmetric: the mean of both, or js: the
    Jensen-Shannon divergence.
    """

    needs_teacher = True
    needs_temperature = True

    def __init__(
        self, tau_squared: bool = True, direction: Literal["forward", "reverse", "symmetric", "js"] = "forward"
    ) -> None:
        super().__init__()
        self.tau_squared, self.direction = tau_squared, direction

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None and outputs.temperature is not None
        divergence = DIVERGENCES[self.direction]
        return divergence(outputs.student_logits, outputs.teacher_logits, outputs.temperature, self.tau_squared)
