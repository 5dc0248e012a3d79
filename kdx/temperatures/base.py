"""What a distillation temperature is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from kdx.types import Progress, TemperatureValue


class Temperature(nn.Module, ABC):
    """Gives the step's temperature: a tensor [] or [B,1], or one for each network (`kdx.types.TemperaturePair`).

    It may look at the logits [B,K] and at the progress of training, never at anything global. Parameters, if it has any,
    get an optimizer group of their own with `weight_decay`. `per_network` says that it gives one for each network.
    """

    weight_decay: float = 0.0
    per_network: bool = False

    def connect(self, num_classes: int) -> None:
        """Build what depends on the number of classes; called once, before weights are loaded and the optimizer is made."""

    @abstractmethod
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> TemperatureValue:
        """The temperature for this batch."""

    def telemetry(self, progress: Progress) -> dict[str, float]:
        """Further numbers worth a curve, by name; they do not wait for the device."""
        return {}

    def complaint(self) -> str | None:
        """What is wrong with the last training step's temperature, and the remedy; None if nothing. Waits for the device."""
        return None
