"""Adversarially learned temperature (CTKD, arXiv:2211.16231) with an easy-to-hard curriculum."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdx.ranges import Count, Finite, Fraction, NonNegative, Positive, validated
from kdx.temperatures.base import Temperature
from kdx.temperatures.ramp import Ramp
from kdx.types import Progress

CLOSE = 0.01  # share of the range at each end where a temperature counts as saturated, because the sigmoid is flat


class _Scaled(torch.autograd.Function):
    """Identity whose gradient is multiplied by a factor; with a negative factor the parameter maximizes the loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class Adversary(Temperature):
    """Learned temperature τ = low + span · sigmoid(raw), in (low, low + span), with `raw` of shape [] or [B,1].

    The student minimizes the objective and `raw` maximizes it, with a strength λ that ramps up. The student's gradient is the
    same as for a constant temperature. With `reverse=False`, `raw` minimizes the objective too: a baseline in which τ
    diverges.
    """

    def __init__(self, low: float, span: float, ramp: Ramp, reverse: bool, weight_decay: float) -> None:
        super().__init__()
        self.low, self.span, self.ramp, self.reverse = low, span, ramp, reverse
        self.weight_decay = weight_decay
        self.last: Tensor | None = None

    @abstractmethod
    def raw_values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return `raw` for this batch, [] or [B,1]."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> Tensor:
        lambd = self.ramp(progress.epoch)
        raw: Tensor = _Scaled.apply(self.raw_values(student_logits, teacher_logits), -lambd if self.reverse else lambd)
        temperature = self.low + self.span * torch.sigmoid(raw.float())
        if self.training:
            self.last = temperature.detach()
        return temperature

    def telemetry(self, progress: Progress) -> dict[str, float]:
        return {"lambda": self.ramp(progress.epoch)}

    def complaint(self) -> str | None:
        if self.last is None:
            return None
        share = (self.last - self.low) / self.span
        shares = [share.isfinite().all().float(), (share < CLOSE).float().mean(), (share > 1 - CLOSE).float().mean()]
        finite, lower, upper = torch.stack(shares).tolist()  # one synchronization
        if not finite:
            return "The temperature is not finite: lower optimizer.lr, or set trainer.gradient_clip_val=1.0"
        if max(lower, upper) <= 0.5:
            return None
        end = self.low if lower > upper else self.low + self.span
        examples = f" of {max(lower, upper):.0%} of the batch" if self.last.ndim else ""
        remedy = "lower temperature.low" if lower > upper else "raise temperature.span"
        return (
            f"The temperature{examples} is stuck at the end of its range, {end:g}, where the sigmoid saturates: {remedy}, "
            "lower temperature.lambd, or use temperature=constant"
        )


@validated
class Curriculum(Adversary):
    """One learned temperature for all examples, [].

    With the defaults τ starts at 1 + 20 · sigmoid(1) = 15.62, and λ rises from 0 to 1 over 10 epochs: `lambda_min` to `lambd`
    over `ramp_epochs`. The authors' code applies weight decay 5e-4 to `raw`; here it is 0.
    """

    def __init__(
        self,
        low: Positive = 1.0,
        span: Positive = 20.0,
        raw: Finite = 1.0,
        ramp: Literal["cosine", "linear", "constant"] = "cosine",
        ramp_epochs: Count = 10,
        lambda_min: Fraction = 0.0,
        lambd: Fraction = 1.0,
        reverse: bool = True,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(low, span, Ramp(ramp, lambda_min, lambd, ramp_epochs), reverse, weight_decay)
        self.raw = nn.Parameter(torch.tensor(float(raw)))

    def raw_values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.raw


@validated
class InstanceCurriculum(Adversary):
    """One temperature per example, [B,1], from both networks' logits by an MLP: [B,2K] -> `hidden` -> ReLU -> 1.

    `raw` is added to the MLP's output, and the last layer is initialized with zeros, so all examples start at the temperature
    of Curriculum. The logits are detached, so only the MLP's weights (θ_T in eq. 1) are learned against the student.
    Otherwise the student would get a gradient through the temperature: reversed, it would increase the loss; not reversed, it
    would lower the loss by changing the temperature instead of matching the teacher. The paper does not give the width.
    """

    def __init__(
        self,
        hidden: Count = 64,
        low: Positive = 1.0,
        span: Positive = 20.0,
        raw: Finite = 1.0,
        ramp: Literal["cosine", "linear", "constant"] = "cosine",
        ramp_epochs: Count = 10,
        lambda_min: Fraction = 0.0,
        lambd: Fraction = 1.0,
        reverse: bool = True,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(low, span, Ramp(ramp, lambda_min, lambd, ramp_epochs), reverse, weight_decay)
        self.hidden, self.raw = hidden, float(raw)
        self.mlp: nn.Sequential | None = None

    def connect(self, num_classes: int) -> None:
        last = nn.Linear(self.hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(2 * num_classes, self.hidden), nn.ReLU(), last)

    def raw_values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        assert self.mlp is not None, "call connect() before forward()"
        both = torch.cat([teacher_logits.detach(), student_logits.detach()], -1).float()
        with torch.autocast(both.device.type, enabled=False):  # half precision would round τ to steps of 0.06
            return self.mlp(both) + self.raw
