"""Pixels from boxes: every image of a batch cropped and resized in two batched matrix products, with antialias."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.types import View


def render(images: Tensor, view: View, resolution: int, sizes: Tensor | None = None) -> Tensor:
    """The regions in `view` as float32 images [B,C,R,R] in [0,1], from uint8 images [B,C,H,W].

    The filter is the triangle whose width grows with the scale (PIL's and torchvision's antialiased bilinear), clipped to
    the region as if it had been cut out first. What a box covers outside of its image is black. `sizes` [B,2] holds the true
    height and width in px where images of different sizes lie in the top left corners of one canvas.
    """
    device = images.device
    if sizes is None:
        sizes = torch.tensor(images.shape[-2:]).expand(len(images), 2)
    start, length, margin = region(torch.from_numpy(view.box), sizes.to(torch.float64))
    (top, left), (height, width) = (x.to(torch.float32).T.to(device, non_blocking=True) for x in (start, length))
    pixels = F.pad(images.to(torch.float32), [margin] * 4)
    flip = torch.from_numpy(view.flip).to(device, non_blocking=True)
    down = weights(top, height, pixels.shape[2], resolution)
    across = weights(left, width, pixels.shape[3], resolution)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    rows = torch.matmul(down[:, None], pixels)
    return torch.matmul(rows, across.transpose(1, 2)[:, None]).mul_(1 / 255)


def region(box: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, int]:
    """Start and length [B,2] in px of boxes [B,4], in images that are to be padded by `margin` px, and that margin.

    A box narrower than a pixel is widened to one, for it may hold no pixel's centre.
    """
    start, extent = box[:, :2] * sizes, box[:, 2:] * sizes
    length = extent.clamp(min=1)
    widened = torch.minimum((start - (length - extent) / 2).clamp(min=0), sizes - 1)
    start = torch.where(extent < 1, widened, start)
    outside = torch.maximum(-start, start + length - sizes)
    margin = max(0, math.ceil(outside.max().item() - 1e-6)) if len(box) else 0
    return start + margin, length, margin


def weights(start: Tensor, length: Tensor, size: int, resolution: int) -> Tensor:
    """The matrices [B,resolution,size] that resize [start, start + length) px of a line of `size` px."""
    start, length = start[:, None, None], length[:, None, None]
    scale = length / resolution
    centre = start + (torch.arange(resolution, device=start.device)[None, :, None] + 0.5) * scale
    pixel = torch.arange(size, device=start.device)[None, None] + 0.5
    weight = (1 - ((pixel - centre) / scale.clamp(min=1)).abs()).clamp_(min=0)
    weight *= (pixel > start - 1e-4) & (pixel < start + length + 1e-4)  # the tolerance: boxes come in float32
    return weight / weight.sum(-1, keepdim=True)
