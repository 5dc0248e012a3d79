"""Attention transfer (arXiv:1612.03928): the student is to look where the teacher looks."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.losses.features import FeatureLoss, Paths
from kdx.losses.geometry import unit
from kdx.losses.projectors import aligned
from kdx.ranges import Positive, validated
from kdx.types import Outputs


def attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """How strongly each position of a feature [B,P,C] responds, [B,P] of length 1: mean over channels of |x|^power."""
    return unit(feature.abs().pow(power).mean(-1))


@validated
class AT(FeatureLoss):
    """Mean squared difference of the attention maps over positions, per example [B]; several pairs are summed.

    This is the authors' code. Their eq. 2 has the unsquared norm instead of the mean.
    """

    def __init__(self, features: Paths, power: Positive = 2.0) -> None:
        super().__init__(features)
        self.power = power

    def compare(self, outputs: Outputs) -> Tensor:
        losses = []
        for pair in self.pairs(outputs):
            student, teacher = (attention(feature, self.power) for feature in aligned(*pair))
            losses.append((student - teacher).square().mean(-1))
        return torch.stack(losses).sum(0)
