"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2) for small images, at half width, as in CRD.

Differs from the paper: the group of 24 channels keeps the resolution, the first block also has a 1x1 convolution before the
depthwise one, ReLU instead of ReLU6. Blocks end in a linear bottleneck, so the feature maps of stages have no ReLU.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from kdx.networks.cifar.base import CFG, CifarNetwork, init_convolutions, init_small
from kdx.networks.registration import register

VARIANTS: dict[str, dict[str, Any]] = {"cifar_mobilenetv2": {"expansion": 6, "width": 0.5}}
# Channels at width 1, repeats, stride; the first group expands by 1.
GROUPS = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
ENDS = (1, 2, 4, 6)  # the groups whose output is the last of its resolution


def convolution(in_width: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution with "same" padding, followed by BatchNorm."""
    return [nn.Conv2d(in_width, width, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(width)]


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project, without a ReLU at the end; a shortcut if input and output have the same shape."""

    def __init__(self, in_width: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_width * expansion
        self.shortcut = stride == 1 and in_width == width
        self.conv = nn.Sequential(
            *convolution(in_width, inner, 1),
            nn.ReLU(),
            *convolution(inner, inner, 3, stride, groups=inner),
            nn.ReLU(),
            *convolution(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class CifarMobileNetV2(CifarNetwork):
    """Seven groups of inverted residuals between a 3x3 stem of stride 2 and a 1x1 convolution to 1280 channels."""

    classifier_name: ClassVar[str] = "classifier"

    def __init__(
        self,
        expansion: int = 6,
        width: float = 0.5,
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        stem = int(32 * width)
        widths = [int(channels * width) for channels, _, _ in GROUPS]
        self.conv1 = nn.Sequential(*convolution(in_chans, stem, 3, 2), nn.ReLU())
        groups, reductions, in_width = [], [2], stem
        for i, (out_width, (_, repeats, stride)) in enumerate(zip(widths, GROUPS, strict=True)):
            strides = [stride] + [1] * (repeats - 1)
            blocks = []
            for step in strides:
                blocks.append(InvertedResidual(in_width, out_width, step, expansion if i else 1))
                in_width = out_width
            groups.append(nn.Sequential(*blocks))
            reductions.append(reductions[-1] * stride)
        self.blocks = nn.Sequential(*groups)
        last = max(1280, int(1280 * width))
        self.conv2 = nn.Sequential(*convolution(in_width, last, 1), nn.ReLU())
        self._finish(last, [(f"blocks.{i}", widths[i], reductions[i + 1]) for i in ENDS])
        init_convolutions(self)

    def _init_classifier(self, layer: nn.Linear) -> None:
        init_small(layer)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,1280,R/16,R/16], after the 1x1 convolution."""
        return self.conv2(self.blocks(self.conv1(x)))


def checkpoint_filter_fn(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of CRD's code under the names used here; its last layer is in an `nn.Sequential`."""
    return {name.replace("classifier.0.", "classifier."): tensor for name, tensor in state.items()}


register(CifarMobileNetV2, VARIANTS, **CFG, first_conv="conv1.0", classifier=CifarMobileNetV2.classifier_name)
