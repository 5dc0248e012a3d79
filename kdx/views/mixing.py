"""Mixing (mixup, CutMix): each example is mixed with its predecessor in the global batch, for both networks and the target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdx.random import uniform
from kdx.ranges import Positive, validated
from kdx.types import Draw
from kdx.views.render import coverage

Floats = NDArray[np.float64]
Per = Literal["batch", "example"]


@dataclass(frozen=True, eq=False)
class Blend(ABC):
    """Mixes each example with its partner, the example before it; `lam` [B] is the example's own share.

    Input tensors have one additional example in front (the halo), which is only a partner. Inputs are not modified.
    """

    lam: Floats

    @abstractmethod
    def images(self, images: Tensor) -> Tensor:
        """Return mixed images [B,C,R,R] from images [1+B,C,R,R] of any resolution."""

    def target(self, target: Tensor) -> Tensor:
        """Return mixed target probabilities [B,K] from target probabilities [1+B,K]."""
        return torch.lerp(target[:-1], target[1:], torch.from_numpy(self.lam[:, None]).to(target))


class Faded(Blend):
    """Mixup: lam·x + (1-lam)·partner."""

    def images(self, images: Tensor) -> Tensor:
        return torch.lerp(images[:-1], images[1:], torch.from_numpy(self.lam[:, None, None, None]).to(images))


@dataclass(frozen=True, eq=False)
class Pasted(Blend):
    """CutMix: the partner's pixels inside `box` [B,4] (fractions of the view); pixels on the edge are blended by area."""

    box: Floats

    def images(self, images: Tensor) -> Tensor:
        return torch.lerp(images[1:], images[:-1], coverage(torch.from_numpy(self.box).to(images.device), images.shape[-1]))


class Mixing(ABC):
    """Base class of the rules that draw how a batch is mixed."""

    @abstractmethod
    def draw(self, draw: Draw) -> Blend:
        """Return the blend for the examples `draw.index[1:]`; the first index is the partner of the second."""


def shares(concentration: float, number: Floats) -> Floats:
    """Return Beta(concentration, concentration) variates from uniform numbers."""
    from scipy.special import betaincinv

    return number if concentration == 1 else np.asarray(betaincinv(concentration, concentration, number))


def numbers(draw: Draw, per: Per, count: int) -> Floats:
    """Return uniform numbers [B,count] for `draw.index[1:]`, drawn per example, or one row per batch repeated B times."""
    index = draw.index[1:] if per == "example" else np.array([draw.batch])
    drawn = uniform(draw.seed, "mixing" if per == "batch" else "mixing per example", draw.epoch, index, count)
    return np.broadcast_to(drawn, (len(draw.index) - 1, count)).copy()


@validated
class Mixup(Mixing):
    """Mixup with lam = max(a, 1-a), a ~ Beta(concentration, concentration), one lam per global batch or per example.

    FunMatch (arXiv:2106.05237, section 3.1.1) uses one lam per batch and concentration 1: lam is uniform in [0.5, 1].
    """

    def __init__(self, concentration: Positive = 1.0, per: Literal["batch", "example"] = "batch") -> None:
        self.concentration, self.per = concentration, per

    def draw(self, draw: Draw) -> Blend:
        a = shares(self.concentration, numbers(draw, self.per, 1)[:, 0])
        return Faded(np.maximum(a, 1 - a))


@validated
class Cutmix(Mixing):
    """CutMix: a box of the partner with area 1 - a, a ~ Beta(concentration, concentration), and the view's aspect ratio.

    The center is uniform in the view, and the box is clipped to the view. lam is the exact remaining area of the example, the
    same at every resolution.

    Reference: Yun et al. 2019, arXiv:1905.04899.
    """

    def __init__(self, concentration: Positive = 1.0, per: Literal["batch", "example"] = "batch") -> None:
        self.concentration, self.per = concentration, per

    def draw(self, draw: Draw) -> Blend:
        drawn = numbers(draw, self.per, 3)
        half = np.sqrt(1 - shares(self.concentration, drawn[:, :1])) / 2
        low, high = np.maximum(drawn[:, 1:] - half, 0), np.minimum(drawn[:, 1:] + half, 1)
        return Pasted(1 - (high - low).prod(1), np.concatenate([low, high - low], 1))
