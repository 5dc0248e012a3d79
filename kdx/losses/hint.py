"""Hint loss (FitNets, arXiv:1412.6550): predict a teacher feature from a student feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdx.losses.features import FeatureLoss
from kdx.losses.projectors import aligned, linear
from kdx.types import LossContext, Outputs


class Hint(FeatureLoss):
    """Mean squared error of the teacher's feature predicted from the student's by a learned 1x1 convolution, per example [B].

    The mean is over channels and positions; several pairs are summed.
    """

    def connect(self, context: LossContext) -> None:
        self.regressors = nn.ModuleList(linear(student, teacher) for student, teacher in self.shapes(context))

    def compare(self, outputs: Outputs) -> Tensor:
        losses = []
        for regressor, pair in zip(self.regressors, self.pairs(outputs), strict=True):
            student, teacher = aligned(*pair)
            losses.append((regressor(student) - teacher).square().mean((1, 2)))
        return torch.stack(losses).sum(0)
