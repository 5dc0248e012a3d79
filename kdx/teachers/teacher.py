"""Base class of teachers, and a teacher that runs one frozen network on every batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from kdx.networks import weights
from kdx.networks.arithmetic import folded, laid_out
from kdx.networks.network import UNSUITABLE, Network, checked_logits
from kdx.networks.normalization import Normalization
from kdx.teachers.calibration_maps import IDENTITY, CalibrationMap, TemperatureMap

Others = Mapping[int, Tensor]  # the same view at other resolutions, by side in px


class Teacher(ABC):
    """Maps images [B,C,R,R] to calibrated float32 logits [B,K], without gradient.

    A teacher is not an `nn.Module`, so optimizers, checkpoints, DDP and `train()` do not affect it. `calibration` maps the
    network's logits; where it divides them, `calibration_temperature` says by what. A teacher has one or more members: `each`
    returns the logits of all members (`raw` those before calibration), and `combine` reduces them to one.
    """

    calibration: CalibrationMap = IDENTITY
    num_classes: int
    separate: bool = False  # True: one distillation loss per member

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return the network's logits [B,K] before calibration."""

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
        """Number of parameters."""

    @property
    def calibration_temperature(self) -> float | None:
        """The temperature by which the logits are divided; None if `calibration` is another map."""
        return self.calibration.temperature if isinstance(self.calibration, TemperatureMap) else None

    @calibration_temperature.setter
    def calibration_temperature(self, temperature: float) -> None:
        self.calibration = TemperatureMap(temperature)

    @property
    def members(self) -> Mapping[str, Teacher]:
        """Member teachers by name; a single teacher has one member, itself."""
        return {"teacher": self}

    def runs_at(self, side: int) -> bool:
        """Return whether all members run on images of `side` px: a ViT has one size, and a deep network needs some pixels."""
        return True

    def __call__(self, images: Tensor, others: Others | None = None) -> Tensor:
        """Return calibrated logits [B,K]. `others` are the same images at other resolutions, by side in px."""
        return self.combine(self.each(images, others))

    def raw(self, images: Tensor, others: Others | None = None) -> Tensor:
        """Return the logits of all members before calibration, [M,B,K]."""
        with torch.no_grad():
            return self.logits(images).float()[None]

    def calibrated(self, raw: Tensor) -> Tensor:
        """Return logits [M,B,K] of all members after their calibration."""
        members = self.members.values()
        return torch.stack([member.calibration(logits) for logits, member in zip(raw, members, strict=True)])

    def each(self, images: Tensor, others: Others | None = None) -> Tensor:
        """Return the calibrated logits of all members, [M,B,K]."""
        return self.calibrated(self.raw(images, others))

    def combine(self, each: Tensor) -> Tensor:
        """Reduce the members' logits [M,B,K] to [B,K]."""
        return each[0]


class OnlineTeacher(Teacher):
    """A teacher that runs one frozen network on every batch, always in eval mode (BatchNorm and dropout).

    With a `resolution` it uses the images of that resolution from `others`, if available. `alternatives` are the other
    normalizations with which its weights may have been trained, for the preflight. With `fold` and `channels_last`, a copy of
    `network` runs that has less arithmetic, equal up to rounding (see `kdx.networks.arithmetic`); `tapped` says that features
    of `network` are captured, which the copy may lack. Products and convolutions are in `dtype` (None: as the caller's).
    """

    tapped = False

    def __init__(
        self,
        network: Network,
        resolution: int | None = None,
        alternatives: Sequence[Normalization] = (),
        *,
        fold: bool = False,
        channels_last: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.network = network.requires_grad_(False).eval()
        self.num_classes, self.resolution = network.num_classes, resolution
        self.alternatives, self.fold, self.channels_last = tuple(alternatives), fold, channels_last
        self.dtype = dtype
        self._runs: Network | None = None

    def running(self, side: int) -> Network:
        """Return the network that runs on images of `side` px, on the device of `network`."""
        if self._runs is None or self._runs.mean.device != self.network.mean.device:
            self._runs = folded(self.network, side) if self.fold and not self.tapped else self.network
            if self.channels_last:
                laid_out(self._runs, side)
        return self._runs

    def raw(self, images: Tensor, others: Others | None = None) -> Tensor:
        return super().raw(self._own(images, others))

    def normalized_otherwise(self, images: Tensor, others: Others | None = None) -> Tensor:
        """Return the logits [B,A,K] under each of the `alternatives`, which the preflight compares with the network's own."""
        images, network, each = self._own(images, others), self.network, []
        for other in self.alternatives:
            mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (other.mean, other.std))
            with torch.no_grad():
                each.append(self.logits((images - mean) / std * network.std + network.mean).float())
        return torch.stack(each, 1)

    def _own(self, images: Tensor, others: Others | None) -> Tensor:
        resized = (others or {}).get(self.resolution) if self.resolution is not None else None
        return images if resized is None else resized

    def logits(self, images: Tensor) -> Tensor:
        network = self.running(images.shape[-1])
        assert not any(module.training for module in network.modules()), "the teacher left eval mode"
        with self._precision(images.device):
            return checked_logits(network(images), "teacher", network, (len(images), self.num_classes))

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self.dtype is None:
            return nullcontext()
        lower = self.dtype != torch.float32
        return torch.autocast(device.type, self.dtype if lower else None, enabled=lower)

    @torch.no_grad()
    def runs_at(self, side: int) -> bool:
        network = self.network
        try:
            network(network.mean.new_zeros(2, network.in_channels, side, side))
        except UNSUITABLE:
            return False
        return True

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    @property
    def fingerprint(self) -> str:
        return weights.digest(self.network.model)

    @property
    def num_parameters(self) -> int:
        return self.network.num_parameters
