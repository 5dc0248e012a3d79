"""Distillation without a teacher (Tf-KD, arXiv:1909.11723): a made-up one that is always right, and never certain."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import Fraction, Positive, validated
from kdx.types import Outputs


@validated
class Virtual(Loss):
    """KL(virtual teacher || student) in nats times τ², per example [B].

    The virtual teacher gives `correct` to the true class and the rest evenly to the others. τ is the loss's own
    `temperature`, which tempers the student, and the virtual teacher only if `smooth_teacher`.
    """

    needs_label = True
    needs_one_label = True

    def __init__(self, correct: Fraction = 0.9, temperature: Positive = 1.0, smooth_teacher: bool = False) -> None:
        super().__init__()
        self.correct, self.temperature, self.smooth_teacher = correct, temperature, smooth_teacher

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.label is not None
        return functional.virtual_kl(outputs.student_logits, outputs.label, self.correct, self.temperature, self.smooth_teacher)
