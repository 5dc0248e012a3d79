"""Attention transfer (AT, arXiv:1612.03928): match the spatial attention maps of student and teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.losses.features import FeatureLoss, Paths
from kdx.losses.geometry import unit
from kdx.losses.projectors import aligned
from kdx.ranges import Positive, validated
from kdx.types import Outputs


def attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """Attention map [B,P] of a feature [B,P,C]: the mean over channels of |x|^power, normalized to length 1."""
    return unit(feature.abs().pow(power).mean(-1))


@validated
class AT(FeatureLoss):
    """Mean squared difference of the attention maps over positions, per example [B]; several pairs are summed.

    As in the authors' code; eq. 2 of the paper has the unsquared norm instead of the mean.
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
