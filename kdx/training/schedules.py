"""Learning-rate schedules: pure functions of the step, as a factor of the optimizer's lr."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from kdx.scalars import Fraction, NonNegative, Number, Positive, validated


class LrSchedule(ABC):
    """The factor on lr at a 0-based optimizer step. Warm-up is linear from 0 over `warmup_steps` or `warmup_epochs`."""

    def __init__(self, warmup_steps: int = 0, warmup_epochs: float = 0.0) -> None:
        if warmup_steps and warmup_epochs:
            raise ValueError("give the warm-up in steps or in epochs, not in both")
        self.warmup_steps, self.warmup_epochs = warmup_steps, warmup_epochs

    def __call__(self, step: int, total_steps: int, steps_per_epoch: float) -> float:
        """The factor at `step` of `total_steps`."""
        warmup = self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)
        factor = self.factor(step, warmup, total_steps, steps_per_epoch)
        return factor * min(1.0, step / warmup) if warmup else factor

    @abstractmethod
    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        """The factor without the warm-up."""


@validated
class ConstantLr(LrSchedule):
    """The same lr after the warm-up."""

    def __init__(self, warmup_steps: Number = 0, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_steps, warmup_epochs)

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        return 1.0


@validated
class CosineLr(LrSchedule):
    """Half a cosine from 1 at the end of the warm-up to `final` at the last step, as big_vision's schedule."""

    def __init__(self, warmup_steps: Number = 0, warmup_epochs: NonNegative = 0.0, final: Fraction = 0.0) -> None:
        super().__init__(warmup_steps, warmup_epochs)
        self.final = final

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        progress = min(max((step - warmup) / max(total_steps - warmup, 1), 0.0), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@validated
class MultiStepLr(LrSchedule):
    """lr times `gamma` from each of the 0-based epochs in `milestones` on."""

    def __init__(
        self,
        milestones: Sequence[Number] = (150, 180, 210),
        gamma: Positive = 0.1,
        warmup_steps: Number = 0,
        warmup_epochs: NonNegative = 0.0,
    ) -> None:
        super().__init__(warmup_steps, warmup_epochs)
        self.milestones, self.gamma = milestones, gamma

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        return self.gamma ** sum(step >= milestone * steps_per_epoch for milestone in self.milestones)


@validated
class OneCycleLr(LrSchedule):
    """Half a cosine up from 1/`div` over the first `rise` of all steps, then half a cosine down to 1/(`div`·`final_div`)."""

    def __init__(self, rise: Fraction = 0.3, div: Positive = 25.0, final_div: Positive = 1e4) -> None:
        super().__init__()
        self.rise, self.start, self.end = rise, 1 / div, 1 / (div * final_div)

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        peak = self.rise * total_steps - 1
        if step < peak:
            return _between(self.start, 1.0, step / peak)
        fall = max(total_steps - 1 - peak, 1e-9)  # no step at all where rise is 1
        return _between(1.0, self.end, min((step - peak) / fall, 1.0))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
