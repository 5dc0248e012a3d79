"""Features of any layout in one: [B,P,C], C channels at P positions. And what brings two of them to the same P or C.

Layouts are pooled [B,F] (one position), maps [B,C,H,W], and tokens [B,N,D] as a vision transformer has them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREFIX = 8  # more class and register tokens than any transformer has


def channels(shape: torch.Size) -> int:
    """How many channels a feature of this shape (without the batch) has."""
    return shape[0] if len(shape) in (1, 3) else shape[-1]


def flat(feature: Tensor) -> Tensor:
    """All of a feature as one vector, [B,F]."""
    return feature.flatten(1)


def positions(feature: Tensor) -> Tensor:
    """[B,P,C] of any layout."""
    if feature.ndim == 2:
        return feature[:, None]
    return feature.flatten(2).mT if feature.ndim == 4 else feature


def grid(feature: Tensor) -> Tensor:
    """A map [B,C,H,W] of any layout. Tokens form a square, without the class and register tokens in front.

    ValueError where they do not.
    """
    if feature.ndim == 2:
        return feature[..., None, None]
    if feature.ndim == 4:
        return feature
    side = math.isqrt(feature.shape[1])
    if feature.shape[1] - side**2 > PREFIX:
        raise ValueError(
            f"{feature.shape[1]} tokens form no square to be compared with a feature of another size: "
            "name features with equal numbers of tokens, or pooled"
        )
    return feature[:, feature.shape[1] - side**2 :].mT.unflatten(2, (side, side))


def aligned(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as [B,P,C] at the same positions: along each side, the larger map is averaged to the size of the smaller."""
    if positions(student).shape[1] == positions(teacher).shape[1] and student.ndim == teacher.ndim != 4:
        return positions(student), positions(teacher)
    student, teacher = grid(student), grid(teacher)
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return positions(_averaged(student, size)), positions(_averaged(teacher, size))


def _averaged(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if feature.shape[2:] == size else F.adaptive_avg_pool2d(feature, size)


def linear(student: torch.Size, teacher: torch.Size, bias: bool = True) -> nn.Linear:
    """From the student's channels to the teacher's at each position of [B,P,C]: a 1x1 convolution."""
    return nn.Linear(channels(student), channels(teacher), bias=bias)
