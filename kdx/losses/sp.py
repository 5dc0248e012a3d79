"""Similarity-preserving distillation (SP, arXiv:1907.09682): match the similarity matrices of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.losses.features import FeatureLoss
from kdx.losses.geometry import unit
from kdx.losses.projectors import flat
from kdx.types import Outputs


def similarities(features: Tensor) -> Tensor:
    """Scalar products of all pairs of features [B,F], each row with length 1: [B,B]."""
    largest = features.detach().abs().amax().clamp_min(torch.finfo(features.dtype).tiny)  # so that no product overflows
    scaled = features / largest
    return unit(scaled @ scaled.T)


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared Frobenius distance of the similarities of features [B,F], over B², a scalar []."""
    return (similarities(student) - similarities(teacher)).square().mean()


class SP(FeatureLoss):
    """SP, a scalar [] over the batch on one device; several pairs of features are summed."""

    def compare(self, outputs: Outputs) -> Tensor:
        return torch.stack([sp(flat(student), flat(teacher)) for student, teacher in self.pairs(outputs)]).sum()
