"""Base class of the distillation temperatures."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from kdx.types import Progress, TemperatureValue


class Temperature(nn.Module, ABC):
    """Computes the temperature of a step: a tensor [] or [B,1], or one per network (`kdx.types.TemperaturePair`).

    It depends on the logits [B,K] and the training progress only. Learned parameters get their own optimizer group with
    `weight_decay`. `per_network` is True if `forward` returns a `TemperaturePair`.
    """

    weight_decay: float = 0.0
    per_network: bool = False

    def connect(self, num_classes: int) -> None:
        """Create layers that depend on the number of classes. Called once, before weights and optimizer are created."""

    @abstractmethod
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> TemperatureValue:
        """Return the temperature of this batch, [] or [B,1], or a pair of them."""

    def telemetry(self, progress: Progress) -> dict[str, float]:
        """Return further values to log, by name. Must not synchronize with the device."""
        return {}

    def complaint(self) -> str | None:
        """Return a warning about the last training step, with its remedy, or None. Synchronizes with the device."""
        return None
