"""ResNet-50 (He et al. 2015, arXiv:1512.03385) for small images, as in CRD: a 3x3 stem of stride 1 without pooling.

The stride of a bottleneck is in its 3x3 convolution. Parameter names are those of CRD's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.networks.cifar.base import CFG, CifarNetwork, init_convolutions
from kdx.networks.registration import register

VARIANTS: dict[str, dict[str, Any]] = {"cifar_resnet50": {}}
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut: [B,in,R,R] -> [B,4 width,R/stride,R/stride]."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        out_width = EXPANSION * width
        self.conv1 = nn.Conv2d(in_width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_width != out_width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_width, out_width, 1, stride, bias=False), nn.BatchNorm2d(out_width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class CifarResNet50(CifarNetwork):
    """Four stages of bottlenecks, 64 to 512 wide and four times as many channels out."""

    classifier_name: ClassVar[str] = "linear"

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        self.conv1 = nn.Conv2d(in_chans, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(blocks[0], 64, 64, 1)
        self.layer2 = self._stage(blocks[1], 256, 128, 2)
        self.layer3 = self._stage(blocks[2], 512, 256, 2)
        self.layer4 = self._stage(blocks[3], 1024, 512, 2)
        self._finish(2048, [(f"layer{i + 1}", 256 << i, 1 << i) for i in range(4)])
        init_convolutions(self)

    @staticmethod
    def _stage(blocks: int, in_width: int, width: int, stride: int) -> nn.Sequential:
        rest = [Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(Bottleneck(in_width, width, stride), *rest)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,2048,R/8,R/8]."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


register(CifarResNet50, VARIANTS, **CFG, first_conv="conv1", classifier=CifarResNet50.classifier_name)
