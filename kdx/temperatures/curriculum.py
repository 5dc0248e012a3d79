"""A temperature learned against the student (CTKD, arXiv:2211.16231): easy tasks first, hard ones later."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from kdx.scalars import Count, Finite, Fraction, NonNegative, Positive, validated
from kdx.temperatures.base import Temperature
from kdx.types import Progress


class _Reversal(torch.autograd.Function):
    """Identity whose gradient is multiplied by -lambd: what the optimizer minimises, the parameter maximises."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, lambd: float) -> Tensor:
        ctx.lambd = lambd
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * (-ctx.lambd), None


def reverse(value: Tensor, lambd: float) -> Tensor:
    """`value` unchanged; its gradient comes back times -lambd, lambd in [0,1]."""
    return _Reversal.apply(value, lambd)


def ramp(epoch: int, epochs: int, start: float = 0.0, end: float = 1.0) -> float:
    """λ in the 0-based `epoch`: half a cosine from `start` to `end` over `epochs` epochs, then `end` (paper, eq. 11).

    Epochs count from 1 in the formula, as in the authors' code, so λ is already above `start` in the first one.
    """
    return start + (end - start) * (1 - math.cos(math.pi * min(epoch + 1, epochs) / epochs)) / 2


@validated
class Curriculum(Temperature):
    """One learned temperature for all examples: τ = low + span · sigmoid(raw), in (low, low + span).

    The student minimises the objective, `raw` maximises it with a strength λ that ramps up over `ramp_epochs`. With the
    defaults τ starts at 1 + 20 · sigmoid(1) = 15.62. The authors' code applies weight decay 5e-4 to `raw`; here it is 0.
    """

    def __init__(
        self,
        low: Positive = 1.0,
        span: Positive = 20.0,
        raw: Finite = 1.0,
        ramp_epochs: Count = 10,
        lambd: Fraction = 1.0,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.low, self.span, self.ramp_epochs, self.lambd = low, span, ramp_epochs, lambd
        self.weight_decay = weight_decay
        self.raw = nn.Parameter(torch.tensor(float(raw)))

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> Tensor:
        raw = reverse(self.raw, ramp(progress.epoch, self.ramp_epochs, end=self.lambd))
        return self.low + self.span * torch.sigmoid(raw.float())

    def telemetry(self, progress: Progress) -> dict[str, float]:
        return {"lambda": ramp(progress.epoch, self.ramp_epochs, end=self.lambd)}
