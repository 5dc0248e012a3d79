"""The CIFAR ResNets of He et al. 2015 (arXiv:1512.03385, section 4.2), as used in the distillation papers.

Three stages of basic blocks, widths 16-16-32-64, projection shortcuts; `..x4` has the widths 32-64-128-256 of CRD (Tian et al.
2020, arXiv:1910.10699). Parameter names are those of CRD's code, so its published weights can be loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.networks.cifar.base import CFG, CifarNetwork, init_convolutions
from kdx.networks.registration import register

VARIANTS: dict[str, dict[str, Any]] = {
    "cifar_resnet8": {"depth": 8},
    "cifar_resnet14": {"depth": 14},
    "cifar_resnet20": {"depth": 20},
    "cifar_resnet32": {"depth": 32},
    "cifar_resnet44": {"depth": 44},
    "cifar_resnet56": {"depth": 56},
    "cifar_resnet110": {"depth": 110},
    "cifar_resnet8x4": {"depth": 8, "widths": (32, 64, 128, 256)},
    "cifar_resnet32x4": {"depth": 32, "widths": (32, 64, 128, 256)},
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B,in,R,R] -> [B,out,R/stride,R/stride]."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_width != width:
            self.downsample = nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class CifarResNet(CifarNetwork):
    """A CIFAR ResNet of depth 6n+2; `widths` are those of the stem and of the three stages."""

    def __init__(
        self,
        depth: int = 20,
        widths: Sequence[int] = (16, 16, 32, 64),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"Invalid depth {depth} of a CIFAR ResNet; expected 6n+2, such as 8, 14, 20, 32, 44, 56 or 110")
        stem, first, second, third = widths
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_chans, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = self._stage(blocks, stem, first, 1)
        self.layer2 = self._stage(blocks, first, second, 2)
        self.layer3 = self._stage(blocks, second, third, 2)
        self._finish(third, [("layer1", first, 1), ("layer2", second, 2), ("layer3", third, 4)])
        init_convolutions(self)

    @staticmethod
    def _stage(blocks: int, in_width: int, width: int, stride: int) -> nn.Sequential:
        rest = [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(in_width, width, stride), *rest)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,F,R/4,R/4]."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))


register(CifarResNet, VARIANTS, **CFG, first_conv="conv1", classifier=CifarResNet.classifier_name)
