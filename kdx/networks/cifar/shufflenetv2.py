"""ShuffleNetV2 (Ma et al. 2018, arXiv:1807.11164, table 5, size 1) for small images, as in CRD.

Differs from the paper: a 1x1 stem of stride 1 without pooling. Initialized with PyTorch's defaults.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.networks.cifar.base import CFG, CifarNetwork
from kdx.networks.cifar.shufflenetv1 import shuffle
from kdx.networks.registration import register

VARIANTS: dict[str, dict[str, Any]] = {"cifar_shufflenetv2": {}}
STEM, WIDTHS, UNITS, LAST = 24, (116, 232, 464), (4, 8, 4), 1024


def pointwise(in_width: int, width: int) -> list[nn.Module]:
    """Return a 1x1 convolution, BatchNorm and ReLU."""
    return [nn.Conv2d(in_width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def depthwise(width: int, stride: int) -> list[nn.Module]:
    """Return a depthwise 3x3 convolution and BatchNorm."""
    return [nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width)]


class ShuffleUnitV2(nn.Module):
    """Basic unit: one half of the channels is convolved, then all are shuffled: [B,width,R,R] -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(*pointwise(half, half), *depthwise(half, 1), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        passed, convolved = x.chunk(2, 1)
        return shuffle(torch.cat([passed, self.branch(convolved)], 1), 2)


class DownUnit(nn.Module):
    """Downsampling unit: both branches convolve all channels with stride 2: [B,in,R,R] -> [B,width,R/2,R/2]."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.shortcut = nn.Sequential(*depthwise(in_width, 2), *pointwise(in_width, half))
        self.branch = nn.Sequential(*pointwise(in_width, half), *depthwise(half, 2), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(torch.cat([self.shortcut(x), self.branch(x)], 1), 2)


class CifarShuffleNetV2(CifarNetwork):
    """Three stages of units, 116, 232 and 464 wide, and a 1x1 convolution to 1024 channels."""

    classifier_name: ClassVar[str] = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__(num_classes, drop_rate)
        self.conv1 = nn.Conv2d(in_chans, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        stages = [self._stage(*sizes) for sizes in zip((STEM, *WIDTHS[:-1]), WIDTHS, UNITS, strict=True)]
        self.layer1, self.layer2, self.layer3 = stages
        self.conv2 = nn.Sequential(*pointwise(WIDTHS[-1], LAST))
        self._finish(LAST, [(f"layer{i + 1}", WIDTHS[i], 2 << i) for i in range(3)])

    @staticmethod
    def _stage(in_width: int, width: int, units: int) -> nn.Sequential:
        return nn.Sequential(DownUnit(in_width, width), *(ShuffleUnitV2(width) for _ in range(units - 1)))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,1024,R/8,R/8], after the 1x1 convolution."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


# Position of the n-th convolution within a branch, after its ReLUs are counted; its norm is next.
BRANCH = {1: "branch.0", 2: "branch.3", 3: "branch.5"}
DOWN = {1: "shortcut.0", 2: "shortcut.2", 3: "branch.0", 4: "branch.3", 5: "branch.5"}


def checkpoint_filter_fn(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of CRD's code under the names used here."""

    def renamed(match: re.Match[str]) -> str:
        stage, unit, layer, number = match.groups()
        branch, _, position = (BRANCH if int(unit) else DOWN)[int(number)].partition(".")
        return f"{stage}.{unit}.{branch}.{int(position) + (layer == 'bn')}."

    inside = {re.sub(r"^(layer\d)\.(\d+)\.(conv|bn)([1-5])\.", renamed, name): tensor for name, tensor in state.items()}
    last = {"conv2.weight": "conv2.0.weight"}
    return {last.get(name, re.sub(r"^bn2\.", "conv2.1.", name)): tensor for name, tensor in inside.items()}


register(CifarShuffleNetV2, VARIANTS, **CFG, first_conv="conv1", classifier=CifarShuffleNetV2.classifier_name)
