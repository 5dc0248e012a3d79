"""Variational information distillation (VID, arXiv:1904.05835): the teacher's feature is to be likely given the student's."""

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
    """What a student's feature [B,P,C] says of the teacher's: a mean [B,P,C'] by three 1x1 convolutions, a variance [C'].

    The variance, one per channel and everywhere the same, starts at `variance` and stays above `floor`.
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

    Several pairs are summed. `variance` is what the learned variances start from, and `floor` is added to them.
    """

    def __init__(self, features: Paths, variance: Positive = 5.0, floor: Positive = 1e-5) -> None:
        super().__init__(features)
        if variance <= floor:
            raise ValueError(f"the variance starts at {variance}, which is not above its floor {floor}: raise variance")
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
