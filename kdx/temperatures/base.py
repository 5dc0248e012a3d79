"""What a distillation temperature is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from kdx.types import Progress
from kdx.types import Temperature as Value


class Temperature(nn.Module, ABC):
    """Gives the step's temperature: a tensor [] or [B,1], or a pair (teacher, student) of such.

    It may look at the logits [B,K] and at the progress of training, never at anything global. Parameters, if it has any,
    get an optimizer group of their own with `weight_decay`.
    """

    weight_decay: float = 0.0

    @abstractmethod
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> Value:
        """The temperature for this batch."""

    def telemetry(self, progress: Progress) -> dict[str, float]:
        """Further numbers worth a curve, by name."""
        return {}

    def connect(self, num_classes: int) -> None:
        """Build what depends on the number of classes; called once, before the optimizer is made."""

    def complaint(self) -> str | None:
        """What is wrong with a learned temperature, such as being at a bound, and what to do; None if nothing is."""
        return None
