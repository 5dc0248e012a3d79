"""Directions of vectors. Where there is none, nothing is divided by zero and no gradient comes back.

An epsilon in the denominator, as public code has it, biases what is small and gives a zero vector a gradient of 1/epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.losses.functional import upcast


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """The vectors with length 1 along `dim`, float32 at least; a zero vector stays zero and gets no gradient."""
    vectors = upcast(vectors)
    largest = vectors.detach().abs().amax(dim, keepdim=True)  # so that no square overflows or vanishes
    return _directions(vectors, largest, largest < torch.finfo(vectors.dtype).tiny, dim)


def deviation(values: Tensor, dim: int = -1) -> Tensor:
    """The values' deviations from their mean with length 1 along `dim`; zero, without a gradient, where they are constant.

    The scalar product of two such is Pearson's correlation. Constant is what differs by rounding only.
    """
    values = upcast(values)
    centerd = values - values.mean(dim, keepdim=True)
    largest = centerd.detach().abs().amax(dim, keepdim=True)
    rounding = 8 * torch.finfo(values.dtype).eps * values.detach().abs().amax(dim, keepdim=True)
    return _directions(centerd, largest, largest <= rounding, dim)


def _directions(vectors: Tensor, largest: Tensor, none: Tensor, dim: int) -> Tensor:
    scaled = vectors / largest.masked_fill(none, 1)
    length = scaled.square().sum(dim, keepdim=True).masked_fill(none, 1).sqrt()
    return (scaled / length).masked_fill(none, 0)
