"""Learning-rate schedules: pure functions from the step to a factor on the optimizer's lr."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from kdx.ranges import Fraction, NonNegative, Number, Positive, validated


class LrSchedule(ABC):
    """The factor on lr at a 0-based optimizer step. Warm-up is linear from 0 over `warmup_steps` or `warmup_epochs`."""

    def __init__(self, warmup_steps: int = 0, warmup_epochs: float = 0.0) -> None:
        if warmup_steps and warmup_epochs:
            raise ValueError("warmup_steps and warmup_epochs are mutually exclusive: set one of them to 0")
        self.warmup_steps, self.warmup_epochs = warmup_steps, warmup_epochs

    def __call__(self, step: int, total_steps: int, steps_per_epoch: float) -> float:
        """Return the factor on lr at `step` of `total_steps`."""
        warmup = self.warmup(steps_per_epoch)
        factor = self.factor(step, warmup, total_steps, steps_per_epoch)
        return factor * min(1.0, step / warmup) if warmup else factor

    def warmup(self, steps_per_epoch: float) -> int:
        """Return the length of the warm-up in steps."""
        return self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)

    @abstractmethod
    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        """Return the factor on lr without the warm-up; `warmup` is its length in steps."""

    def momentum(self, step: int, total_steps: int) -> float | None:
        """Return the optimizer's momentum (Adam's first beta) at a 0-based step; None leaves it unchanged."""
        return None


@validated
class ConstantLr(LrSchedule):
    """Constant lr after the warm-up."""

    def __init__(self, warmup_steps: Number = 0, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_steps, warmup_epochs)

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        return 1.0


@validated
class CosineLr(LrSchedule):
    """Half a cosine from 1 at the end of the warm-up to `final` at the last step, as in big_vision."""

    def __init__(self, warmup_steps: Number = 0, warmup_epochs: NonNegative = 0.0, final: Fraction = 0.0) -> None:
        super().__init__(warmup_steps, warmup_epochs)
        self.final = final

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        return _between(1.0, self.final, _progress(step, warmup, total_steps))


@validated
class PolynomialLr(LrSchedule):
    """(1 - progress) ** `power` from 1 at the end of the warm-up to 0 at the last step.

    FunMatch with Shampoo uses `power` 2 after a linear warm-up (arXiv:2106.05237, appendix D).
    """

    def __init__(self, power: Positive = 2.0, warmup_steps: Number = 0, warmup_epochs: NonNegative = 0.0) -> None:
        super().__init__(warmup_steps, warmup_epochs)
        self.power = power

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        return (1 - _progress(step, warmup, total_steps)) ** self.power


@validated
class MultiStepLr(LrSchedule):
    """Step decay: lr is multiplied by `gamma` at each of the 0-based epochs in `milestones`."""

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
    """Half a cosine up from 1/`div` over the first `rise` of all steps, then half a cosine down to 1/(`div`·`final_div`).

    With `cycle_momentum`, the momentum falls from 0.95 to 0.85 and rises again, as by default in torch.
    """

    def __init__(
        self, rise: Fraction = 0.3, div: Positive = 25.0, final_div: Positive = 1e4, cycle_momentum: bool = False
    ) -> None:
        super().__init__()
        self.rise, self.start, self.end = rise, 1 / div, 1 / (div * final_div)
        self.cycle_momentum = cycle_momentum

    def factor(self, step: int, warmup: int, total_steps: int, steps_per_epoch: float) -> float:
        return self._at(step, total_steps, self.start, 1.0, self.end)

    def momentum(self, step: int, total_steps: int) -> float | None:
        return self._at(step, total_steps, 0.95, 0.85, 0.95) if self.cycle_momentum else None

    def _at(self, step: int, total_steps: int, start: float, top: float, end: float) -> float:
        peak = self.rise * total_steps - 1
        if step < peak:
            return _between(start, top, step / peak)
        fall = max(total_steps - 1 - peak, 1e-9)  # 0 steps if rise is 1
        return _between(top, end, min((step - peak) / fall, 1.0))


def _progress(step: int, warmup: int, total_steps: int) -> float:
    """Return the progress after the warm-up, in [0,1]."""
    return min(max((step - warmup) / max(total_steps - warmup, 1), 0.0), 1.0)


def _between(start: float, end: float, share: float) -> float:
    """Return the value of half a cosine from `start` to `end` after a share in [0,1]."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
