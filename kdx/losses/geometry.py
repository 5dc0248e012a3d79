"""Vectors normalized to length 1. A zero vector stays zero and gets a zero gradient.

An epsilon in the denominator, as in public code, would bias small vectors and give a zero vector a gradient of 1/epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.losses.functional import upcast


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Return the vectors with length 1 along `dim`, in at least float32; a zero vector stays zero, without gradient."""
    vectors = upcast(vectors)
    largest = _largest(vectors, dim)  # so that no square overflows or vanishes
    return _directions(vectors, largest, largest < torch.finfo(vectors.dtype).tiny, dim)


def deviation(values: Tensor, dim: int = -1) -> Tensor:
    """Return deviations from the mean, normalized to length 1 along `dim`; constant values give zeros, without gradient.

    The scalar product of two such vectors is Pearson's correlation. Values that differ only by rounding count as constant.
    """
    values = upcast(values)
    centered = values - values.mean(dim, keepdim=True)
    largest = _largest(centered, dim)
    rounding = 8 * torch.finfo(values.dtype).eps * _largest(values, dim)
    return _directions(centered, largest, largest <= rounding, dim)


def _largest(values: Tensor, dim: int) -> Tensor:
    """Return the largest magnitude along `dim`, which is kept, without a dense copy."""
    values = values.detach()
    return torch.maximum(values.amax(dim, keepdim=True), -values.amin(dim, keepdim=True))


def _directions(vectors: Tensor, largest: Tensor, is_zero: Tensor, dim: int) -> Tensor:
    scaled = vectors / largest.masked_fill(is_zero, 1)
    length = scaled.square().sum(dim, keepdim=True).masked_fill(is_zero, 1).sqrt()
    return (scaled / length).masked_fill_(is_zero, 0)
