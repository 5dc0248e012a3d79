"""A temperature learned against the student (CTKD, arXiv:2211.16231): easy tasks first, hard ones later."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdx.ranges import Count, Finite, Fraction, NonNegative, Positive, validated
from kdx.temperatures.base import Temperature
from kdx.temperatures.ramp import Ramp
from kdx.types import Progress

CLOSE = 0.01  # this near to an end of the range, as a share of it, a temperature is stuck: the sigmoid is flat there


class _Scaled(torch.autograd.Function):
    """Identity whose gradient is multiplied by a factor; below 0, the parameter maximizes what the optimizer minimizes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class Adversary(Temperature):
    """τ = low + span · sigmoid(raw), in (low, low + span); what gives `raw`, [] or [B,1], is learned against the student.

    The student minimizes the objective and `raw` maximizes it, with a strength λ that ramps up. The gradient that reaches the
    student is that of a constant temperature. With `reverse` off `raw` minimizes the objective too: the baseline in which τ
    runs away.
    """

    def __init__(self, low: float, span: float, ramp: Ramp, reverse: bool, weight_decay: float) -> None:
        super().__init__()
        self.low, self.span, self.ramp, self.reverse = low, span, ramp, reverse
        self.weight_decay = weight_decay
        self.last: Tensor | None = None

    @abstractmethod
    def raw_values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """`raw` for this batch."""

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
        told = torch.stack([share.isfinite().all().float(), (share < CLOSE).float().mean(), (share > 1 - CLOSE).float().mean()])
        finite, lower, upper = told.tolist()
        if not finite:
            return "the temperature is not finite: try a lower optimizer.lr, or trainer.gradient_clip_val=1.0"
        if max(lower, upper) <= 0.5:
            return None
        end = self.low if lower > upper else self.low + self.span
        stuck = f"of {max(lower, upper):.0%} of the batch is stuck" if self.last.ndim else "is stuck"
        remedy = "lower temperature.low" if lower > upper else "raise temperature.span"
        return (
            f"the temperature {stuck} at the end of its range, {end:g}, where the sigmoid is flat: {remedy}, lower "
            "temperature.lambd, or use temperature=constant"
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
    """A temperature for each example, [B,1], from both networks' logits by an MLP: [B,2K] -> `hidden` -> ReLU -> 1.

    `raw` is added to what the MLP says, and its last layer starts at zero, so all examples start where Curriculum does.
    The logits go in detached. What is learned against the student are the MLP's weights (θ_T in eq. 1) and nothing else:
    through its logits the student would get a gradient that is reversed, and so climb the loss, or, unreversed, one that
    lowers the loss by moving the temperature instead of answering as the teacher does. The paper does not give the width.
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
        assert self.mlp is not None, "connect() comes first"
        both = torch.cat([teacher_logits.detach(), student_logits.detach()], -1).float()
        with torch.autocast(both.device.type, enabled=False):  # half precision would round τ to steps of 0.06
            return self.mlp(both) + self.raw
