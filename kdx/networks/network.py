"""A network: images in [0,1] in, logits out. It owns its normalization, so teacher and student may differ in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import kdx.networks.cifar
import kdx.networks.mobilenetv3  # noqa: F401 - both register architectures with timm
from kdx.networks import names, weights
from kdx.ranges import Count, Finite, Positive, ShapeError, validated

log = logging.getLogger("kdx")


@validated
class Network(nn.Module):
    """Images [B,C,R,R] in [0,1] -> normalized -> logits [B,K], by any architecture that timm knows.

    `pretrained` loads timm's weights for that name, and then mean and std are the ones those weights were trained with;
    otherwise they are the data set's: one per channel, one for all, or three colors, which are averaged where the images have
    other channels. `init` is a file of weights to start from; its last layer may be one for other classes, or absent, and
    then the network's own stays fresh. `args` goes to the architecture's constructor. `self.model` is the plain timm model.
    ValueError for weights that do not exist or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: str,
        num_classes: Count,
        in_channels: Count = 3,
        mean: Sequence[Finite] = (0.5,),
        std: Sequence[Positive] = (0.5,),
        pretrained: bool = False,
        init: str | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        names.check_architecture(architecture)
        _check_pretrained(architecture, pretrained)
        if pretrained and init is not None:
            raise ValueError(f"the network cannot start both from {init} and from pretrained weights: give pretrained=false")
        self.architecture, self.args = architecture, dict(args or {})
        self.num_classes, self.in_channels = num_classes, in_channels
        self.model = timm.create_model(
            architecture, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **self.args
        )
        if pretrained:
            trained: Any = self.model.pretrained_cfg
            mean, std = trained["mean"], trained["std"]
        for name, values in (("mean", mean), ("std", std)):
            own = torch.tensor(_per_channel(name, values, in_channels))
            self.register_buffer(name, own.view(1, -1, 1, 1), persistent=False)
        if init is not None:
            self._start_from(Path(init))

    def _start_from(self, path: Path) -> None:
        fresh = weights.initialize(self.model, path)
        rest = f"; the last layer, {' and '.join(fresh)}, starts fresh for {self.num_classes} classes" if fresh else ""
        log.info("%s starts from %s%s", self.architecture, path, rest)

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.mean) / self.std)

    @property
    def num_parameters(self) -> int:
        """How many parameters the network has."""
        return sum(p.numel() for p in self.parameters())

    @property
    def card(self) -> dict[str, Any]:
        """All it takes to build the plain timm model again and to feed it, as plain data."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return {
            "architecture": self.architecture,
            "num_classes": self.num_classes,
            "model_args": {"num_classes": self.num_classes, "in_chans": self.in_channels, **self.args},
            "pretrained_cfg": {"num_classes": self.num_classes, "mean": mean, "std": std},
        }


def checked_logits(logits: Tensor, role: str, network: object, shape: tuple[int, int]) -> Tensor:
    """Return `logits` if they are floating point of `shape` (B, K); else raise ShapeError, which names role and class."""
    name = f"{role} network {type(network).__name__}"
    if not isinstance(logits, Tensor):
        raise ShapeError(f"{name} returned a {type(logits).__name__}; expected a tensor of logits: return the logits alone")
    if logits.shape != shape:
        raise ShapeError(
            f"{name} returned logits of shape {list(logits.shape)}; expected {list(shape)} (examples, classes): "
            "return one value per class, e.g. by a last layer with num_classes outputs and .flatten(1)"
        )
    if not logits.is_floating_point():
        raise ShapeError(f"{name} returned logits of type {logits.dtype}; expected floating point: return logits.float()")
    return logits


def _per_channel(name: str, values: Sequence[float], in_channels: int) -> list[float]:
    if len(values) == in_channels:
        return list(values)
    if len(values) not in (1, 3):
        raise ValueError(
            f"{name} has {len(values)} values and the images have {in_channels} channels: "
            "give one for each channel, or one for all"
        )
    return [sum(values) / len(values)] * in_channels


def _check_pretrained(architecture: str, pretrained: bool) -> None:
    """Raise ValueError, with what there is, where timm has no such weights."""
    if names.comes_from_elsewhere(architecture):
        return
    name, _, tag = architecture.partition(".")
    known = {full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(name)} - {""}
    if tag and tag not in known:
        raise ValueError(names.unknown_tag(name, tag, known))
    if pretrained and not timm.models.is_model_pretrained(architecture):
        raise ValueError(f"there are no pretrained weights of {architecture}: give pretrained=false, or init=FILE for your own")
