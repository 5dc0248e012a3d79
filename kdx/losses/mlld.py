"""Multi-level logit distillation (MLLD or MLKD, CVPR 2023): examples, pairs of examples and pairs of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kdx.losses import functional
from kdx.losses.objective import Loss
from kdx.ranges import Positive, validated
from kdx.types import Outputs


def levels(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return the losses of the instance, batch and class level [3] of logits [B,K] at temperature τ.

    With probabilities P of the teacher and Q of the student, [B,K], they are the mean of τ² · KL(P || Q),
    Σ(PPᵀ - QQᵀ)² / B over pairs of examples, and Σ(PᵀP - QᵀQ)² / K over pairs of classes; only the first has τ².
    The differences are computed from Q - P and Q + P, without cancellation, and those of the classes without a matrix [K,K].
    """
    teacher, student, squared = functional.tempered(student_logits, teacher_logits, temperature)
    instance = functional.relative_entropy(teacher, student).mean() * squared
    gap, total = student.exp() - teacher.exp(), student.exp() + teacher.exp()
    cross = gap @ total.mT  # QQᵀ - PPᵀ is its symmetric part
    batch = ((cross + cross.mT) / 2).square().sum() / len(cross)
    classes = ((gap @ gap.mT) * (total @ total.mT) + cross * cross.mT).sum() / (2 * gap.shape[-1])
    return torch.stack([instance, batch, classes])


def masked_shares(teacher_logits: Tensor) -> Tensor:
    """Return the shares [3] of what the masks of the three levels leave, each about a half.

    It is the share of the examples whose teacher is at most as confident as the median, twice, and the share of the classes
    whose probabilities, summed over the batch, are at most the median.
    """
    probs = functional.log_probs(teacher_logits).exp()
    examples, classes = ((values <= values.quantile(0.5)).float().mean() for values in (probs.amax(-1), probs.sum(0)))
    return torch.stack([examples, examples, classes])


@validated
class MLLD(Loss):
    """The three levels of MLLD, summed over its own `temperatures`, a scalar [] over the batch of one device.

    The formulas are those of the authors' code. That code sees a weakly and a strongly augmented view of each image and adds
    the losses of both, without the class level of the strong one; here there is one view, that of the run. It also multiplies
    each level of the weak view by a mask, after the mean over the batch, so that a mask acts as a factor of about a half:
    `masks` does the same.
    """

    needs_teacher = True

    def __init__(
        self,
        temperatures: Annotated[Sequence[Positive], Field(min_length=1)] = (2.0, 3.0, 4.0, 5.0, 6.0),
        masks: bool = False,
    ) -> None:
        super().__init__()
        self.temperatures, self.masks = tuple(temperatures), masks

    def forward(self, outputs: Outputs) -> Tensor:
        student, teacher = outputs.student_logits, outputs.teacher_logits
        assert teacher is not None
        with torch.autocast(student.device.type, enabled=False):
            each = torch.stack([levels(student, teacher, temperature) for temperature in self.temperatures]).sum(0)
            return (each * masked_shares(teacher) if self.masks else each).sum()
