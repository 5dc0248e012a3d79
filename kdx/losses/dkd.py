"""Decoupled knowledge distillation (DKD, arXiv:2203.08679): separate weights for the target and the non-target classes."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import NonNegative, validated
from kdx.types import Outputs, TemperatureValue

TWO_CLASSES = "DKD needs at least 3 classes: its non-target term is undefined for 2. Use losses=[kd]"


def decoupled_kl(student_log_probs: Tensor, teacher_log_probs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return TCKD and NCKD in nats, each [B], of log-probabilities [B,K] with labels [B].

    TCKD is the KL between the binary distributions (true class, all others), NCKD the KL between the distributions over the
    K - 1 other classes; KL(teacher || student) = TCKD + (1 - p_teacher(true)) · NCKD.

    Raises ValueError for K = 2.
    """
    if student_log_probs.shape[-1] <= 2:
        raise ValueError(TWO_CLASSES)
    student, teacher = (_decoupled(log_probs, label) for log_probs in (student_log_probs, teacher_log_probs))
    return functional.relative_entropy(teacher[0], student[0]), functional.relative_entropy(teacher[1], student[1])


def _decoupled(log_probs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (true class, all others) [B,2], and of the others, renormalized [B,K-1]."""
    others = functional.without(log_probs, label)
    rest = others.logsumexp(-1, keepdim=True)  # log(1 - p), without ever taking 1 - p
    return torch.cat([log_probs.gather(1, label[:, None]), rest], -1), others - rest


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    label: Tensor,
    temperature: TemperatureValue | float = 1.0,
    alpha: float = 1.0,
    beta: float = 2.0,
) -> Tensor:
    """DKD loss τ² · (alpha · TCKD + beta · NCKD), [B], of logits [B,K] at temperature τ, with labels [B]."""
    teacher, student, squared = functional.tempered(student_logits, teacher_logits, temperature)
    target, others = decoupled_kl(student, teacher, label)
    return functional.scaled(alpha * target + beta * others, squared)


@validated
class DKD(Loss):
    """DKD loss per example [B] at the step's temperature τ, times τ². Needs at least 3 classes.

    Requires mixing=none, because a mixed image has more than one true class.
    """

    needs_teacher = True
    needs_temperature = True
    needs_label = True
    needs_one_label = True
    min_classes = 3
    too_few_classes = TWO_CLASSES

    def __init__(self, alpha: NonNegative = 1.0, beta: NonNegative = 2.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None and outputs.temperature is not None and outputs.label is not None
        return dkd(outputs.student_logits, outputs.teacher_logits, outputs.label, outputs.temperature, self.alpha, self.beta)
