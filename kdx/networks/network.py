"""A network: images in [0,1] in, logits out. It owns its normalisation, so teacher and student may differ in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

import kdx.networks.cifar  # noqa: F401 - registers the CIFAR families with timm
from kdx.networks.names import check_architecture
from kdx.scalars import Count, validated


@validated
class Network(nn.Module):
    """Images [B,C,R,R] in [0,1] -> normalised -> logits [B,K], by any architecture that timm knows.

    `pretrained` loads timm's weights for that name, and then mean and std are the ones those weights were trained with;
    otherwise they are the data set's. `args` goes to the architecture's constructor. `self.model` is the plain timm model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: str,
        num_classes: Count,
        in_channels: Count = 3,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        pretrained: bool = False,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        self.architecture, self.args = architecture, dict(args or {})
        self.num_classes, self.in_channels = num_classes, in_channels
        self.model = timm.create_model(
            architecture, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **self.args
        )
        if pretrained:
            trained: Any = self.model.pretrained_cfg
            mean, std = trained["mean"], trained["std"]
        for name, values in (("mean", mean), ("std", std)):
            values = list(values) if len(values) == in_channels else [sum(values) / len(values)] * in_channels
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

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
