"""A teacher is a function: images -> logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from kdx.networks import weights
from kdx.networks.network import Network, checked_logits

Others = Mapping[int, Tensor]  # the same view at other resolutions, by side in px


class Teacher(ABC):
    """Images [B,C,R,R] -> calibrated float32 logits [B,K], without a gradient.

    A teacher is no `nn.Module`: so no optimizer, checkpoint or gradient bucket can pick it up, and no call of `train()`
    reaches it. `calibration_temperature` divides its logits; 1 leaves them as they are. A teacher may have members, which
    each have a say: `each` gives theirs, `combine` makes one of them.
    """

    calibration_temperature: float = 1.0
    num_classes: int
    separate: bool = False  # does each member teach with a loss of its own?

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

    @property
    def members(self) -> Mapping[str, Teacher]:
        """The networks that have a say, by name."""
        return {"teacher": self}

    def __call__(self, images: Tensor, others: Others | None = None) -> Tensor:
        """Calibrated logits [B,K]."""
        return self.combine(self.each(images, others))

    def each(self, images: Tensor, others: Others | None = None) -> Tensor:
        """Every member's calibrated logits [M,B,K]."""
        with torch.no_grad():
            return (self.logits(images).float() / self.calibration_temperature)[None]

    def combine(self, each: Tensor) -> Tensor:
        """One answer [B,K] of the members' [M,B,K]."""
        return each[0]


class OnlineTeacher(Teacher):
    """One network, run on every batch: frozen, and in eval mode at every call (BatchNorm and dropout).

    With a `resolution` it takes its images from `others`, if they are there.
    """

    def __init__(self, network: Network, resolution: int | None = None) -> None:
        self.network = network.requires_grad_(False).eval()
        self.num_classes, self.resolution = network.num_classes, resolution

    def each(self, images: Tensor, others: Others | None = None) -> Tensor:
        own = (others or {}).get(self.resolution) if self.resolution is not None else None
        return super().each(images if own is None else own)

    def logits(self, images: Tensor) -> Tensor:
        assert not any(module.training for module in self.network.modules()), "the teacher left eval mode"
        return checked_logits(self.network(images), "teacher", self.network, (len(images), self.num_classes))

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    @property
    def fingerprint(self) -> str:
        return weights.digest(self.network.model)

    @property
    def num_parameters(self) -> int:
        return self.network.num_parameters
