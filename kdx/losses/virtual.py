"""Distillation from a virtual teacher (Tf-KD, arXiv:1909.11723)."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import Fraction, Positive, validated
from kdx.types import Outputs


@validated
class Virtual(Loss):
    """KL(virtual teacher || student) in nats times τ², per example [B].

    The virtual teacher has probability `correct` for the true class; the rest is spread evenly over the others. τ is this
    loss's `temperature`. It is applied to the student, and to the virtual teacher only if `smooth_teacher`.
    """

    needs_label = True
    needs_one_label = True

    def __init__(self, correct: Fraction = 0.9, temperature: Positive = 1.0, smooth_teacher: bool = False) -> None:
        super().__init__()
        self.correct, self.temperature, self.smooth_teacher = correct, temperature, smooth_teacher

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.label is not None
        return functional.virtual_kl(outputs.student_logits, outputs.label, self.correct, self.temperature, self.smooth_teacher)
