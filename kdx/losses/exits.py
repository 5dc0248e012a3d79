"""Exits: small networks from a feature of the student to logits, as in One-for-All (OFA, arXiv:2310.19444)."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.losses.projectors import channels, grid, positions

SMALLEST = 14  # tokens along a side, below which they are not merged
HEADS = 4  # of attention, or fewer if they do not divide the width


def exit_from(shape: torch.Size, width: int, num_classes: int, later: int) -> nn.Module:
    """Return an exit from a feature of `shape`, without the batch, to logits [B,K], that is followed by `later` other exits.

    A map [C,H,W] is halved `later` times by separable convolutions, averaged and classified from `width` channels; tokens [N,D]
    pass `later` transformer blocks, at least one; a pooled feature [F] is classified as it is.
    """
    if len(shape) == 1:
        return nn.Linear(shape[0], num_classes)
    if len(shape) == 2:
        return TokenExit(shape, num_classes, max(later, 1))
    return MapExit(channels(shape), width, num_classes, later)


class MapExit(nn.Sequential):
    """Map [B,C,H,W] -> logits [B,K]: `halvings` separable blocks, or a 1x1 convolution if there are none; then the mean."""

    def __init__(self, inputs: int, width: int, num_classes: int, halvings: int) -> None:
        widths = [*(inputs * 2**times for times in range(halvings)), width]
        blocks: list[nn.Module] = [_halving(before, after) for before, after in itertools.pairwise(widths)]
        super().__init__(
            *(blocks or [nn.Conv2d(inputs, width, 1)]), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
        )


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    """Return two depthwise-separable convolutions 3x3, each with BatchNorm and ReLU, of which the first has stride 2."""
    layers: list[nn.Module] = []
    for stride, after in ((2, inputs), (1, outputs)):
        layers += [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.Conv2d(inputs, after, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class TokenExit(nn.Module):
    """Tokens [B,N,D] -> logits [B,K]: merge, transformer blocks, and a layer on the mean of the class and register tokens.

    While there is an even number of at least 14 tokens along a side of the image, 2x2 of them are merged to one. Without class
    and register tokens the mean is that of all tokens.
    """

    def __init__(self, shape: torch.Size, num_classes: int, blocks: int) -> None:
        super().__init__()
        tokens, width = shape
        side = grid(torch.empty(1, tokens, 1)).shape[-1]
        self.extra = tokens - side**2  # class and register tokens, in front
        merges: list[nn.Module] = []
        while side >= SMALLEST and side % 2 == 0:
            merges.append(nn.Sequential(nn.LayerNorm(4 * width), nn.Linear(4 * width, width, bias=False), nn.GELU()))
            side //= 2
        self.merges = nn.ModuleList(merges)
        heads = math.gcd(width, HEADS)
        self.blocks = nn.Sequential(*(_block(width, heads) for _ in range(blocks)))
        self.classify = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        for merge in self.merges:
            merged = merge(positions(F.pixel_unshuffle(grid(tokens), 2)))
            tokens = torch.cat([tokens[:, : self.extra], merged], 1)
        tokens = self.blocks(tokens)
        return self.classify(tokens[:, : self.extra or None].mean(1))


def _block(width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
