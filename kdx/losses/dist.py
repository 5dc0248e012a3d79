"""Distillation by correlation (DIST, arXiv:2205.10536): match the relations between predictions, not their values."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from kdx.losses import functional
from kdx.losses.geometry import deviation
from kdx.losses.objective import Loss
from kdx.ranges import NonNegative, validated
from kdx.types import Outputs


def decorrelation(student_log_probs: Tensor, teacher_log_probs: Tensor, dim: int) -> Tensor:
    """1 - Pearson's correlation of the probabilities along `dim`, in [0, 2].

    The result is ½ if one of both is constant, and 0 if both are. It is computed as half a squared distance, so equal inputs
    give exactly 0. Each row is divided by its largest probability before it leaves log-space, which does not change the
    correlation; a class that is always unlikely then counts as much as any other, as in the paper's formula. The authors' code
    adds 1e-8 to the product of norms, which suppresses such a class.
    """
    student, teacher = (
        deviation((log_probs - log_probs.detach().amax(dim, keepdim=True)).exp_(), dim)
        for log_probs in (student_log_probs, teacher_log_probs)
    )
    return (student - teacher).square().sum(dim) / 2


def decorrelation_epsilon(student_log_probs: Tensor, teacher_log_probs: Tensor, dim: int, epsilon: float) -> Tensor:
    """1 - the covariance of the probabilities along `dim`, divided by the product of their norms plus `epsilon`."""
    student, teacher = (
        log_probs.exp() - log_probs.exp().mean(dim, keepdim=True) for log_probs in (student_log_probs, teacher_log_probs)
    )
    norms = torch.linalg.vector_norm(student, dim=dim) * torch.linalg.vector_norm(teacher, dim=dim)
    return 1 - (student * teacher).sum(dim) / (norms + epsilon)


@validated
class DIST(Loss):
    """DIST loss, a scalar []: (beta · inter-class + gamma · intra-class relation) · τ² at the step's temperature τ.

    Inter-class is the mean decorrelation over the classes of each example, intra-class the mean over the examples of each
    class, within the batch of one device. With an `epsilon`, it is added to the product of the norms of the probabilities, as
    1e-8 in the authors' code, with which the published numbers were made; classes that are always unlikely then hardly count.
    """

    needs_teacher = True
    needs_temperature = True

    def __init__(self, beta: NonNegative = 1.0, gamma: NonNegative = 1.0, epsilon: NonNegative = 0.0) -> None:
        super().__init__()
        self.beta, self.gamma, self.epsilon = beta, gamma, epsilon

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None and outputs.temperature is not None
        teacher, student, squared = functional.tempered(outputs.student_logits, outputs.teacher_logits, outputs.temperature)
        apart = functools.partial(decorrelation_epsilon, epsilon=self.epsilon) if self.epsilon else decorrelation
        inter = functional.scaled(apart(student, teacher, 1), squared).mean()
        intra = apart(student, teacher, 0).mean() * torch.as_tensor(squared).mean()
        return self.beta * inter + self.gamma * intra
