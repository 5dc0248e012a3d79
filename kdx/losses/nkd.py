"""Normalized knowledge distillation (NKD, arXiv:2303.13005): a soft label, and the other classes normalized."""

from __future__ import annotations

from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import NonNegative, validated
from kdx.types import Outputs, TemperatureValue

TWO_CLASSES = "NKD needs at least 3 classes: with 2, its non-target term is always 0. Use losses=[kd]"


def nkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    label: Tensor,
    temperature: TemperatureValue | float = 1.0,
    gamma: float = 1.5,
) -> Tensor:
    """NKD loss -p(y) log q(y) - gamma · τ² · Σ p'(k) log q'(k) over k ≠ y in nats, [B], of logits [B,K] with labels y [B].

    p and q are the probabilities of teacher and student at temperature 1, p' and q' those at temperature τ among the K - 1
    other classes alone. Both terms are cross-entropies, so teacher = student does not give 0.

    Raises ValueError for K = 2.
    """
    if student_logits.shape[-1] <= 2:
        raise ValueError(TWO_CLASSES)
    soft_label = functional.log_probs(teacher_logits).gather(1, label[:, None]).exp().squeeze(1)
    target = soft_label * functional.cross_entropy(student_logits, label)
    other_student, other_teacher = (functional.without(logits, label) for logits in (student_logits, teacher_logits))
    teacher, student, squared = functional.tempered(other_student, other_teacher, temperature)
    return target + functional.scaled(-gamma * (teacher.exp() * student).sum(-1), squared)


@validated
class NKD(Loss):
    """NKD loss per example [B], with the step's temperature τ in its non-target term. Needs at least 3 classes.

    The label of a mixed image is the class with the larger share, as in the authors' code.
    """

    needs_teacher = True
    needs_temperature = True
    needs_label = True
    min_classes = 3
    too_few_classes = TWO_CLASSES

    def __init__(self, gamma: NonNegative = 1.5) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, outputs: Outputs) -> Tensor:
        label = outputs.main_label
        assert outputs.teacher_logits is not None and outputs.temperature is not None and label is not None
        return nkd(outputs.student_logits, outputs.teacher_logits, label, outputs.temperature, self.gamma)
