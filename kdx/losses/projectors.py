"""Conversion of features to one layout [B,P,C], C channels at P positions, and projection to equal P or C.

Input layouts are pooled [B,F] (one position), maps [B,C,H,W], and tokens [B,N,D] of a vision transformer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREFIX = 8  # more class and register tokens than any transformer has


def channels(shape: torch.Size) -> int:
    """Return the number of channels of a feature with this shape (without the batch dimension)."""
    return shape[0] if len(shape) in (1, 3) else shape[-1]


def flat(feature: Tensor) -> Tensor:
    """Return the feature flattened to [B,F]."""
    return feature.flatten(1)


def positions(feature: Tensor) -> Tensor:
    """Return a feature of any layout as [B,P,C]."""
    if feature.ndim == 2:
        return feature[:, None]
    return feature.flatten(2).mT if feature.ndim == 4 else feature


def grid(feature: Tensor) -> Tensor:
    """Return a feature of any layout as a map [B,C,H,W]. Class and register tokens in front are dropped.

    Raises ValueError if the remaining tokens do not form a square.
    """
    if feature.ndim == 2:
        return feature[..., None, None]
    if feature.ndim == 4:
        return feature
    side = math.isqrt(feature.shape[1])
    if feature.shape[1] - side**2 > PREFIX:
        raise ValueError(
            f"{feature.shape[1]} tokens do not form a square, so they cannot be resized to the other feature: "
            "select features with equal numbers of tokens, or 'pooled'"
        )
    return feature[:, feature.shape[1] - side**2 :].mT.unflatten(2, (side, side))


def aligned(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both features as [B,P,C] at the same positions; along each side the larger map is average-pooled."""
    if positions(student).shape[1] == positions(teacher).shape[1] and student.ndim == teacher.ndim != 4:
        return positions(student), positions(teacher)
    student, teacher = grid(student), grid(teacher)
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return positions(_averaged(student, size)), positions(_averaged(teacher, size))


def _averaged(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if feature.shape[2:] == size else F.adaptive_avg_pool2d(feature, size)


def linear(student: torch.Size, teacher: torch.Size, bias: bool = True) -> nn.Linear:
    """Return a linear layer from the student's to the teacher's channels; on [B,P,C] it acts as a 1x1 convolution."""
    return nn.Linear(channels(student), channels(teacher), bias=bias)
