"""VGG with BatchNorm (Simonyan & Zisserman 2014, arXiv:1409.1556) for small images, as in CRD: one linear layer as head.

Max pooling follows the first three of five stages, and the fourth only for images of 64 px and more. `cifar_vgg8_bn` is
the configuration of CRD with one convolution per stage. Parameter names are those of CRD's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdx.networks.cifar.base import CFG, CifarNetwork, init_convolutions, init_small
from kdx.networks.registration import register

WIDTHS = (64, 128, 256, 512, 512)
VARIANTS = {
    "cifar_vgg8_bn": {"convolutions": (1, 1, 1, 1, 1)},
    "cifar_vgg11_bn": {"convolutions": (1, 1, 2, 2, 2)},
    "cifar_vgg13_bn": {"convolutions": (2, 2, 2, 2, 2)},
    "cifar_vgg16_bn": {"convolutions": (2, 2, 3, 3, 3)},
    "cifar_vgg19_bn": {"convolutions": (2, 2, 4, 4, 4)},
}


class CifarVgg(CifarNetwork):
    """Five stages of 3x3 convolutions, `convolutions` in each; a stage ends before its pooling."""

    classifier_name: ClassVar[str] = "classifier"

    def __init__(
        self,
        convolutions: Sequence[int] = (1, 1, 1, 1, 1),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        stages = [self._stage(*sizes) for sizes in zip(convolutions, (in_chans, *WIDTHS[:-1]), WIDTHS, strict=True)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = stages
        reductions = (1, 2, 4, 8, 8)
        self._finish(512, [(f"block{i}", WIDTHS[i], reductions[i]) for i in range(5)])
        init_convolutions(self)

    @staticmethod
    def _stage(count: int, in_width: int, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(count):
            layers += [nn.Conv2d(width if i else in_width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
        return nn.Sequential(*layers)

    def _init_classifier(self, layer: nn.Linear) -> None:
        init_small(layer)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,512,R/8,R/8], or [B,512,R/16,R/16] for images of 64 px and more."""
        pools = 4 if min(x.shape[-2:]) >= 64 else 3
        for i, stage in enumerate((self.block0, self.block1, self.block2, self.block3, self.block4)):
            x = stage(x)
            if i < pools:
                x = F.max_pool2d(x, 2, ceil_mode=True)  # ceil keeps a map of one pixel
        return x


register(CifarVgg, VARIANTS, **CFG, first_conv="block0.0", classifier=CifarVgg.classifier_name)
