"""Variational information distillation (VID, arXiv:1904.05835): predict the teacher's feature as a Gaussian."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.losses.features import FeatureLoss, Paths
from kdx.losses.projectors import aligned, channels
from kdx.ranges import Positive, validated
from kdx.types import LossContext, Outputs


def gaussian_nll(mean: Tensor, variance: Tensor, value: Tensor) -> Tensor:
    """-log N(value; mean, variance) without the constant ½·log 2π in nats, averaged over [B,P,C] to [B]; variance is [C]."""
    return ((value - mean).square() / variance + variance.log()).mean((1, 2)) / 2


class Posterior(nn.Module):
    """Gaussian of the teacher's feature given the student's [B,P,C]: mean [B,P,C'] from three 1x1 convolutions, variance [C'].

    The variance is learned per channel, starts at `variance` and stays above `floor`.
    """

    def __init__(self, student: torch.Size, teacher: torch.Size, variance: float, floor: float) -> None:
        super().__init__()
        width = channels(teacher)
        self.mean = nn.Sequential(
            nn.Linear(channels(student), width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )
        self.floor = floor
        self.raw_variance = nn.Parameter(torch.full((width,), math.log(math.expm1(variance - floor))))

    def forward(self, student: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(student), F.softplus(self.raw_variance) + self.floor


@validated
class VID(FeatureLoss):
    """Negative log-likelihood of the teacher's feature, averaged over channels and positions, per example [B].

    Several pairs are summed. `variance` is the initial value of the learned variances, and `floor` their lower bound.
    """

    def __init__(self, features: Paths, variance: Positive = 5.0, floor: Positive = 1e-5) -> None:
        super().__init__(features)
        if variance <= floor:
            raise ValueError(f"Invalid variance {variance}; expected more than floor={floor}: raise variance")
        self.initial_variance, self.floor = variance, floor

    def connect(self, context: LossContext) -> None:
        settings = (self.initial_variance, self.floor)
        self.posteriors = nn.ModuleList(Posterior(*shapes, *settings) for shapes in self.shapes(context))

    def compare(self, outputs: Outputs) -> Tensor:
        losses = []
        for posterior, pair in zip(self.posteriors, self.pairs(outputs), strict=True):
            student, teacher = aligned(*pair)
            mean, variance = posterior(student)
            losses.append(gaussian_nll(mean, variance, teacher))
        return torch.stack(losses).sum(0)
