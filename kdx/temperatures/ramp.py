"""Ramp of the adversarial strength λ of a learned temperature over the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Shape = Literal["cosine", "linear", "constant"]

SHARES: dict[Shape, Callable[[float], float]] = {
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
    "linear": lambda share: share,
    "constant": lambda share: 1.0,
}


@dataclass(frozen=True)
class Ramp:
    """λ by 0-based epoch: from `start` to `end` over `epochs` epochs along half a cosine or a line, then `end`.

    "constant" is `end` in all epochs. Epochs count from 1 in the formula (CTKD, arXiv:2211.16231, eq. 11), as in the authors'
    code, so λ is above `start` in the first epoch.
    """

    shape: Shape = "cosine"
    start: float = 0.0
    end: float = 1.0
    epochs: int = 10

    def __call__(self, epoch: int) -> float:
        """λ in this epoch."""
        share = min(epoch + 1, self.epochs) / self.epochs
        return self.start + (self.end - self.start) * SHARES[self.shape](share)
