"""Temperatures that do not depend on the logits: constant or scheduled."""

from __future__ import annotations

import math

from torch import Tensor

from kdx.ranges import Positive, validated
from kdx.temperatures.base import Temperature
from kdx.types import Progress


@validated
class Constant(Temperature):
    """The same temperature at every step."""

    def __init__(self, value: Positive = 4.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> Tensor:
        return student_logits.new_full((), self.value)


@validated
class Linear(Temperature):
    """From `start` to `end` in equal steps over the whole training."""

    def __init__(self, start: Positive = 8.0, end: Positive = 1.0) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> Tensor:
        return student_logits.new_full((), self.start + (self.end - self.start) * progress.fraction)


@validated
class Cosine(Temperature):
    """From `start` to `end` along half a cosine over the whole training."""

    def __init__(self, start: Positive = 8.0, end: Positive = 1.0) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> Tensor:
        share = (1 - math.cos(math.pi * progress.fraction)) / 2
        return student_logits.new_full((), self.start + (self.end - self.start) * share)
