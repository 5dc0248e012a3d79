"""How strongly a learned temperature is pushed, epoch by epoch."""

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
    """λ in the 0-based epoch: from `start` to `end` over `epochs` epochs along half a cosine or a line, then `end`.

    "constant" is `end` from the start. Epochs count from 1 in the formula (CTKD, arXiv:2211.16231, eq. 11), as in the
    authors' code, so λ is already above `start` in the first one.
    """

    shape: Shape = "cosine"
    start: float = 0.0
    end: float = 1.0
    epochs: int = 10

    def __call__(self, epoch: int) -> float:
        """λ in this epoch."""
        share = min(epoch + 1, self.epochs) / self.epochs
        return self.start + (self.end - self.start) * SHARES[self.shape](share)
