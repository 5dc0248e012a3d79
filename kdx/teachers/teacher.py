"""A teacher is a function: images -> logits."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from kdx.networks import weights
from kdx.networks.network import Network


class Teacher(ABC):
    """Images [B,C,R,R] -> calibrated float32 logits [B,K], without a gradient.

    A teacher is no `nn.Module`: so no optimizer, checkpoint or gradient bucket can pick it up, and no call of `train()`
    reaches it. `calibration_temperature` divides its logits; 1 leaves them as they are.
    """

    calibration_temperature: float = 1.0
    num_classes: int

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """What the network says, before calibration."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move to `device`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """How many parameters there are."""

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.logits(images).float() / self.calibration_temperature


class OnlineTeacher(Teacher):
    """One network, run on every batch: frozen, and in eval mode at every call (BatchNorm and dropout)."""

    def __init__(self, network: Network) -> None:
        self.network = network.requires_grad_(False).eval()
        self.num_classes = network.num_classes

    def logits(self, images: Tensor) -> Tensor:
        assert not any(module.training for module in self.network.modules()), "the teacher left eval mode"
        return self.network(images)

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    @property
    def fingerprint(self) -> str:
        return weights.digest(self.network.model)

    @property
    def num_parameters(self) -> int:
        return self.network.num_parameters
