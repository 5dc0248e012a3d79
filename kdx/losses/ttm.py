"""Transformed teacher matching (TTM and WTTM, arXiv:2402.11148): only the teacher has a temperature."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import validated
from kdx.types import Outputs, TemperatureValue


def ttm(
    student_logits: Tensor, teacher_logits: Tensor, temperature: TemperatureValue | float = 1.0, weighted: bool = False
) -> Tensor:
    """KL(p^γ / U || q) in nats, [B], with p and q the probabilities of teacher and student at temperature 1 and γ = 1/τ.

    U = Σ p^γ over the classes normalizes the transformed teacher, which is the tempered one. If `weighted`, the divergence is
    multiplied by U, which is between 1 for a certain teacher and K^(1-γ) for an even one, if τ >= 1. There is no factor τ²,
    because the student has no temperature. Of one temperature per network, the teacher's counts.
    """
    tau = functional.split(temperature)[0]
    divergence = functional.relative_entropy(functional.log_probs(teacher_logits, tau), functional.log_probs(student_logits))
    return divergence * (functional.log_probs(teacher_logits) / tau).logsumexp(-1).exp() if weighted else divergence


@validated
class TTM(Loss):
    """TTM, or WTTM if `weighted`, in nats per example [B]: τ = 1/γ is the step's temperature, of the teacher alone."""

    needs_teacher = True
    needs_temperature = True

    def __init__(self, weighted: bool = False) -> None:
        super().__init__()
        self.weighted = weighted

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None and outputs.temperature is not None
        return ttm(outputs.student_logits, outputs.teacher_logits, outputs.temperature, self.weighted)
