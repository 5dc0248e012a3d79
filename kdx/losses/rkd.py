"""Relational distillation (RKD, arXiv:1904.05068): distances between two examples, angles between three."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdx.losses.features import FeatureLoss, Paths
from kdx.losses.geometry import unit
from kdx.losses.projectors import flat
from kdx.ranges import NonNegative, validated
from kdx.types import Outputs

ENTRIES = 1 << 22  # largest number of entries of a temporary tensor: 16 MB


def relative_distances(features: Tensor) -> Tensor:
    """Distances of the B·(B-1)/2 pairs of features [B,F], divided by their mean; 0 if all features are equal."""
    distances = F.pdist(features)
    mean = distances.mean()
    return distances / mean.masked_fill(mean == 0, 1)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss (threshold 1) of the relative distances of features [B,F], averaged over B x B, a scalar []."""
    if len(student) < 2:
        return student.sum() * 0
    gaps = F.smooth_l1_loss(relative_distances(student), relative_distances(teacher), reduction="sum")
    return 2 * gaps / len(student) ** 2


def angle_loss(student: Tensor, teacher: Tensor, entries: int = ENTRIES) -> Tensor:
    """Huber loss (threshold 1) of the cosines of the angles between features [B,F], over B x B x B, a scalar [].

    Vertices are processed in chunks, so that no tensor has more than `entries` entries; with more than one chunk the angles
    are recomputed in the backward pass (activation checkpointing).
    """
    count = len(student)
    share = max(1, entries // (count * max(count, student.shape[1], teacher.shape[1])))
    if share >= count:
        return _angle_sum(student, teacher, 0, count) / count**3
    parts = [
        checkpoint(_angle_sum, student, teacher, first, first + share, use_reentrant=False, preserve_rng_state=False)
        for first in range(0, count, share)
    ]
    return torch.stack(parts).sum() / count**3


def _angle_sum(student: Tensor, teacher: Tensor, first: int, end: int) -> Tensor:
    return F.smooth_l1_loss(_cosines(student, first, end), _cosines(teacher, first, end), reduction="sum")


def _cosines(features: Tensor, first: int, end: int) -> Tensor:
    """Cosines [end-first,B,B] of the angles at each vertex; 0 where two of the three features coincide."""
    edges = unit(features[None] - features[first:end, None])
    return edges @ edges.mT


@validated
class RKD(FeatureLoss):
    """`distance` · distance loss + `angle` · angle loss, a scalar [] over the batch on one device; several pairs are summed."""

    def __init__(self, features: Paths, distance: NonNegative = 25.0, angle: NonNegative = 50.0) -> None:
        super().__init__(features)
        self.distance, self.angle = distance, angle

    def compare(self, outputs: Outputs) -> Tensor:
        losses = []
        for pair in self.pairs(outputs):
            student, teacher = (flat(feature) for feature in pair)
            losses.append(self.distance * distance_loss(student, teacher) + self.angle * angle_loss(student, teacher))
        return torch.stack(losses).sum()
