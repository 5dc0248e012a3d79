"""Probabilistic knowledge transfer (PKT, arXiv:1803.10837): match the similarities between examples as probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.losses.features import FeatureLoss
from kdx.losses.geometry import unit
from kdx.losses.projectors import flat
from kdx.types import Outputs

LEAST = 1e-7  # lower bound of a similarity, so that its logarithm is finite for opposite vectors


def affinities(features: Tensor) -> Tensor:
    """Log-probabilities [B,B] over all examples (columns) for each example (row), from (1 + cosine) / 2 of features [B,F]."""
    directions = unit(features)
    similarity = ((1 + directions @ directions.T) / 2).clamp_min(LEAST).log()
    return similarity - similarity.logsumexp(-1, keepdim=True)


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the B x B entries of KL(teacher || student) of the affinities of features [B,F], a scalar [].

    The authors' code adds 1e-7 to all probabilities in the logarithm; here only similarities below 1e-7 are clamped.
    """
    student, teacher = affinities(student), affinities(teacher)
    return (teacher.exp() * (teacher - student)).mean()


class PKT(FeatureLoss):
    """PKT with the cosine similarity, a scalar [] over the batch on one device; several pairs of features are summed."""

    def compare(self, outputs: Outputs) -> Tensor:
        return torch.stack([pkt(flat(student), flat(teacher)) for student, teacher in self.pairs(outputs)]).sum()
