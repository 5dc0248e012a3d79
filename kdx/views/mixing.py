"""Mixing: each example is blended with its predecessor in the global batch, alike for both networks and the target."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor

from kdx.random import uniform
from kdx.scalars import Positive, validated
from kdx.types import Draw


class Mixing(ABC):
    """Blends a batch with itself. Tensors come with one example in front (the halo), the first one's partner."""

    @abstractmethod
    def share(self, draw: Draw) -> float:
        """`lam`, the example's own share, for the global batch that `draw` names."""

    @abstractmethod
    def mix(self, images: Tensor, lam: float) -> Tensor:
        """Blended images [B,...] from images [1+B,...]."""

    def mix_target(self, target: Tensor, lam: float) -> Tensor:
        """Blended target probabilities [B,K] from [1+B,K]."""
        return target[1:].mul(lam).add_(target[:-1], alpha=1 - lam)


@validated
class Mixup(Mixing):
    """lam·x + (1-lam)·partner with one lam for the global batch, lam = max(a, 1-a), a ~ Beta(concentration, concentration).

    As in FunMatch (arXiv:2106.05237, section 3.1.1), where the concentration is 1 and so lam is uniform in [0.5, 1].
    """

    def __init__(self, concentration: Positive = 1.0) -> None:
        self.concentration = concentration

    def share(self, draw: Draw) -> float:
        from scipy.special import betaincinv

        number = uniform(draw.seed, "mixing", draw.epoch, np.array([draw.batch]), 1)[0, 0]
        a = float(number if self.concentration == 1 else betaincinv(self.concentration, self.concentration, number))
        return max(a, 1 - a)

    def mix(self, images: Tensor, lam: float) -> Tensor:
        return images[1:].mul(lam).add_(images[:-1], alpha=1 - lam)
