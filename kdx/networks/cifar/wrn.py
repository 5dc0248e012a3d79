"""Wide ResNets (Zagoruyko & Komodakis 2016, arXiv:1605.07146): `cifar_wrn_40_2` is 40 layers deep and twice as wide.

The blocks are pre-activation, so a stage outputs the sum of its last block before norm and ReLU, as in CRD. The next stage
starts with norm and ReLU, and `forward_features` ends with them. Parameter names are those of CRD's code.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.networks.cifar.base import CFG, CifarNetwork, init_convolutions
from kdx.networks.registration import register

VARIANTS = {
    "cifar_wrn_16_1": {"depth": 16, "factor": 1},
    "cifar_wrn_16_2": {"depth": 16, "factor": 2},
    "cifar_wrn_40_1": {"depth": 40, "factor": 1},
    "cifar_wrn_40_2": {"depth": 40, "factor": 2},
}


class PreActivationBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice, and a shortcut: [B,in,R,R] -> [B,out,R/stride,R/stride]."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(in_width, width, 1, stride, bias=False) if in_width != width else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(active))))


class WideResNet(CifarNetwork):
    """A Wide ResNet of depth 6n+4: three stages, 16, 32 and 64 times `factor` wide."""

    def __init__(
        self,
        depth: int = 16,
        factor: int = 2,
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"Invalid depth {depth} of a Wide ResNet; expected 6n+4, such as 10, 16, 22, 28 or 40")
        blocks = (depth - 4) // 6
        widths = [16 * factor, 32 * factor, 64 * factor]
        self.conv1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        self.block1 = self._stage(blocks, 16, widths[0], 1)
        self.block2 = self._stage(blocks, widths[0], widths[1], 2)
        self.block3 = self._stage(blocks, widths[1], widths[2], 2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self._finish(widths[2], [(f"block{i + 1}", widths[i], 1 << i) for i in range(3)])
        init_convolutions(self)

    @staticmethod
    def _stage(blocks: int, in_width: int, width: int, stride: int) -> nn.Sequential:
        rest = [PreActivationBlock(width, width, 1) for _ in range(blocks - 1)]
        layer = nn.Sequential(PreActivationBlock(in_width, width, stride), *rest)
        return nn.Sequential(OrderedDict(layer=layer))

    def _init_classifier(self, layer: nn.Linear) -> None:
        nn.init.zeros_(layer.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,F,R/4,R/4], after norm and ReLU."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return F.relu(self.bn1(x))


register(WideResNet, VARIANTS, **CFG, first_conv="conv1", classifier=WideResNet.classifier_name)
