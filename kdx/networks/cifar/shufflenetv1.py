"""ShuffleNet (Zhang et al. 2017, arXiv:1707.01083, three groups) for small images, as in CRD.

Differs from the paper: a 1x1 stem of stride 1 without pooling, an additional ReLU after the depthwise convolution. Initialized
with PyTorch's defaults.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.networks.cifar.base import CFG, CifarNetwork
from kdx.networks.registration import register

VARIANTS: dict[str, dict[str, Any]] = {"cifar_shufflenetv1": {}}
STEM, WIDTHS, UNITS, GROUPS = 24, (240, 480, 960), (4, 8, 4), 3


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Return [B,C,R,R] with shuffled channels: each new group has an equal share of each of the `groups`."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleUnitV1(nn.Module):
    """Grouped 1x1, depthwise 3x3 and grouped 1x1 convolution: [B,in,R,R] -> [B,width,R/stride,R/stride].

    With stride 2, the output is concatenated with the pooled input.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        out_width = width - in_width if stride == 2 else width  # the pooled input has the other channels
        inner = out_width // 4
        self.groups = 1 if in_width == STEM else GROUPS  # the stem has too few channels to group
        self.squeeze = nn.Sequential(
            nn.Conv2d(in_width, inner, 1, groups=self.groups, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.expand = nn.Sequential(nn.Conv2d(inner, out_width, 1, groups=GROUPS, bias=False), nn.BatchNorm2d(out_width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(shuffle(self.squeeze(x), self.groups)))
        if self.stride == 2:
            return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1))
        return F.relu(y + x)


class CifarShuffleNetV1(CifarNetwork):
    """Three stages of shuffle units, 240, 480 and 960 wide; each halves the resolution first."""

    classifier_name: ClassVar[str] = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__(num_classes, drop_rate)
        self.conv1 = nn.Conv2d(in_chans, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        stages = [self._stage(*sizes) for sizes in zip((STEM, *WIDTHS[:-1]), WIDTHS, UNITS, strict=True)]
        self.layer1, self.layer2, self.layer3 = stages
        self._finish(WIDTHS[-1], [(f"layer{i + 1}", WIDTHS[i], 2 << i) for i in range(3)])

    @staticmethod
    def _stage(in_width: int, width: int, units: int) -> nn.Sequential:
        return nn.Sequential(ShuffleUnitV1(in_width, width, 2), *(ShuffleUnitV1(width, width, 1) for _ in range(units - 1)))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,960,R/8,R/8]."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))


def checkpoint_filter_fn(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of CRD's code under the names used here."""

    def renamed(match: re.Match[str]) -> str:
        unit, layer, number = match.groups()
        return f"{unit}.{('squeeze', 'depthwise', 'expand')[int(number) - 1]}.{int(layer == 'bn')}."

    return {re.sub(r"^(layer\d\.\d+)\.(conv|bn)([123])\.", renamed, name): tensor for name, tensor in state.items()}


register(CifarShuffleNetV1, VARIANTS, **CFG, first_conv="conv1", classifier=CifarShuffleNetV1.classifier_name)
