"""Rendering of views: crop and resize images with antialiasing, one axis after the other, reading only the needed pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kdx.types import View

Interpolation = Literal["bilinear", "bicubic", "area", "bilinear_aliased", "bicubic_aliased"]
SMALL = 64  # px: up to this size one dense matrix product per batch is faster on a CPU than a loop over the images
CHUNK = 32  # images per matrix product on a CPU, so that intermediate results stay in its cache
TINY = 1e-6  # px: a pixel center at most this far from an edge counts as on the edge


def triangle(x: Tensor) -> Tensor:
    """Linear kernel, as PIL's BILINEAR."""
    return (1 - x.abs()).clamp_(min=0)


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -0.5, as PIL's BICUBIC; it has negative lobes."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


class Resizing(NamedTuple):
    """Filters of the teacher's and of the student's images; the student's are rendered from the teacher's, if so stated."""

    teacher: Interpolation = "bilinear"
    student: Interpolation = "bilinear"
    student_from_teacher: bool = False


DEFAULT = Resizing()
KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {"bilinear": (triangle, 1), "bicubic": (cubic, 2)}
ALIASED = "_aliased"  # suffix: the kernel does not grow with the scale, as in tf.image.resize and F.interpolate by default


@dataclass(frozen=True, eq=False)
class FilterTaps:
    """Filter of one axis: output pixel r is the sum over t of weight[b,r,t] times line index[b,r,t]; both [B,R,T]."""

    index: Tensor
    weight: Tensor
    first: list[int]  # [B]: the first line used
    end: list[int]  # [B]: the line after the last one used
    count: list[int]  # [B]: number of the T taps that this image needs

    def to(self, device: torch.device) -> FilterTaps:
        """Return the taps on `device`."""
        return replace(self, index=self.index.to(device, non_blocking=True), weight=self.weight.to(device, non_blocking=True))

    def of_axes(self) -> tuple[FilterTaps, FilterTaps]:
        """Return the first and the second half, if the taps of two axes were computed as those of one."""
        half = len(self.index) // 2
        parts = [
            FilterTaps(self.index[of], self.weight[of], self.first[of], self.end[of], self.count[of])
            for of in (slice(half), slice(half, None))
        ]
        return parts[0], parts[1]

    def matrices(self, size: int) -> Tensor:
        """Return the taps as dense matrices [B,R,size]."""
        zeros = self.weight.new_zeros(*self.index.shape[:2], size)
        return zeros.scatter_add_(2, self.index, self.weight)


def render(
    images: Tensor, view: View, resolution: int, sizes: Tensor | None = None, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Render the boxes of `view` as float32 images [B,C,R,R] in [0,1] from uint8 images [B,C,H,W].

    The filter width grows with the scale (antialiasing as in PIL and torchvision) except in the `_aliased` kernels, and the
    filter is clipped to the box, as if the box had been cropped first. "area" is the mean over the exact area of each pixel, as
    TensorFlow's, with parts of input pixels (PIL's BOX takes whole ones). Pixels outside of the image are black. The
    result does not depend on the other images of the batch.

    Args:
        images: uint8 [B,C,H,W].
        view: boxes [B,4] in fractions of the image, and flips [B].
        resolution: side R of the result in px.
        sizes: true height and width [B,2] in px, if images of different sizes share a canvas (top left corner).
        interpolation: the resize kernel.
    """
    if sizes is None:
        sizes = torch.tensor(images.shape[-2:]).expand(len(images), 2)
    down, across = plan(view, resolution, sizes, interpolation)
    if images.device.type != "cpu" or max(images.shape[-2:]) <= SMALL:
        down, across = down.to(images.device), across.to(images.device)
        left_to_right = across.matrices(images.shape[3]).transpose(1, 2)
        top_to_bottom = down.matrices(images.shape[2])
        at_once = CHUNK if images.device.type == "cpu" else max(len(images), 1)
        parts = (part.split(at_once) for part in (images, left_to_right, top_to_bottom))
        pixels = torch.cat([dense(*part) for part in zip(*parts, strict=True)])
    else:
        pixels = torch.empty(len(images), images.shape[1], resolution, resolution)
        for number, image in enumerate(images):
            resize(image, down, across, number, out=pixels[number])
    return pixels.clamp_(0, 1) if interpolation.startswith("bicubic") else pixels


def dense(images: Tensor, left_to_right: Tensor, top_to_bottom: Tensor) -> Tensor:
    """Resize images [B,C,H,W] to [B,C,R,R] with the matrices [B,W,R] and [B,R,H]."""
    rows = torch.bmm(images.to(torch.float32).flatten(1, 2), left_to_right).unflatten(1, images.shape[1:3])
    # Per channel: matmul would first copy the matrices for each channel.
    return torch.stack([torch.bmm(top_to_bottom, channel) for channel in rows.unbind(1)], 1)


def render_each(images: Sequence[Tensor], view: View, resolution: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """Render uint8 images [C,H,W] of any sizes as in `render`, rounded to uint8 [B,C,R,R]. Used in worker processes."""
    sizes = torch.tensor([image.shape[-2:] for image in images]).reshape(-1, 2)
    down, across = plan(view, resolution, sizes, interpolation)
    pixels = torch.empty(len(images), images[0].shape[0], resolution, resolution, dtype=torch.uint8)
    buffer = torch.empty(pixels.shape[1:])
    for number, image in enumerate(images):
        resize(image, down, across, number, out=buffer)
        pixels[number] = buffer.mul_(255).round_().clamp_(0, 255)
    return pixels


def resize(image: Tensor, down: FilterTaps, across: FilterTaps, number: int, out: Tensor) -> None:
    """Resize `image`, uint8 [C,H,W], with the taps of image `number` into `out` [C,R,R]; reads only the needed window."""
    (top, bottom), (left, right) = ((taps.first[number], taps.end[number]) for taps in (down, across))
    channels, height, resolution = len(image), bottom - top, out.shape[-1]
    lines = image[:, top:bottom, left:right].to(torch.float32, memory_format=torch.contiguous_format).flatten(0, 1)
    index, weight = (x[number, :, : down.count[number]] for x in (down.index, down.weight))
    index = torch.cat([index + (height * channel - top) for channel in range(channels)])
    rows = weighted(lines, index, weight.repeat(channels, 1))
    index, weight = (x[number, :, : across.count[number]] for x in (across.index, across.weight))
    turned = weighted(rows.t().contiguous(), index - left, weight.contiguous())
    out.view(channels * resolution, resolution).copy_(turned.t())


def weighted(lines: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return the sums [N,W] over t of weight[n,t] times line index[n,t], for lines [L,W]."""
    starts = torch.arange(0, index.numel(), index.shape[1])
    return torch.embedding_bag(lines, index.flatten(), starts, mode=0, per_sample_weights=weight.flatten())[0]


def plan(view: View, resolution: int, sizes: Tensor, interpolation: Interpolation) -> tuple[FilterTaps, FilterTaps]:
    """Return the taps of the vertical and the horizontal axis, including the flips and the scaling from 0..255 to 0..1."""
    start, length = region(torch.from_numpy(view.box), sizes.to(torch.float64))
    # Both axes at once: small images cost as many calls as large ones.
    starts, lengths, sides = (x.t().flatten() for x in (start, length, sizes))
    down, across = taps(starts, lengths, sides, resolution, interpolation).of_axes()
    flip = torch.from_numpy(view.flip)[:, None, None]
    index, weight = (torch.where(flip, x.flip(1), x) for x in (across.index, across.weight))
    return replace(down, weight=down.weight / 255), replace(across, index=index, weight=weight)


def region(box: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return start and length [B,2] in px of boxes [B,4]. Boxes are at least 1 px wide, so that they contain a pixel center."""
    start, extent = box[:, :2] * sizes, box[:, 2:] * sizes
    length = extent.clamp(min=1)
    widened = torch.minimum((start - (length - extent) / 2).clamp(min=0), sizes - 1)
    return torch.where(extent < 1, widened, start), length


def taps(start: Tensor, length: Tensor, size: Tensor, resolution: int, interpolation: Interpolation) -> FilterTaps:
    """Return the taps that resize [start, start + length) px of lines of `size` px, each [B].

    Only pixels with their center inside the interval are used. Pixels outside of the line are black: they are included in the
    normalization of the weights, then their weight is set to 0.
    """
    if interpolation == "area":
        return area_taps(start, length, size, resolution)
    kernel, radius = KERNELS[interpolation.removesuffix(ALIASED)]
    scale = (length / resolution)[:, None]
    width = torch.ones_like(scale) if interpolation.endswith(ALIASED) else scale.clamp(min=1)
    support = radius * width
    least = (start - 0.5 - TINY).ceil()[:, None]
    most = (start + length - 0.5 + TINY).floor()[:, None]
    center = start[:, None] + (torch.arange(resolution) + 0.5) * scale
    # A narrow filter would find no pixel if a box starts just after a pixel's center.
    center = torch.minimum(torch.maximum(center, least + 1 - support), most + support)
    counts = (2 * support[:, 0] - TINY).ceil().long().tolist()
    first = (center - support - 0.5 + TINY).floor()[..., None] + 1
    index = first + torch.arange(max(counts, default=1))
    weight = kernel((index + 0.5 - center[..., None]) / width[..., None])
    weight = weight * ((index >= least[..., None]) & (index <= most[..., None]))
    return inside(index, weight, size, least, most, counts)


def area_taps(start: Tensor, length: Tensor, size: Tensor, resolution: int) -> FilterTaps:
    """Return the taps whose weights are the lengths of the input pixels inside of each output pixel; arguments as of `taps`."""
    scale = (length / resolution)[:, None]
    least, most = (start + TINY).floor()[:, None], ((start + length - TINY).ceil() - 1)[:, None]
    low = start[:, None] + torch.arange(resolution) * scale
    counts = (scale[:, 0].ceil() + 1).long().tolist()
    index = (low + TINY).floor()[..., None] + torch.arange(max(counts, default=1))
    weight = torch.minimum(index + 1, (low + scale)[..., None]) - torch.maximum(index, low[..., None])
    return inside(index, weight.clamp(min=0), size, least, most, counts)


def inside(index: Tensor, weight: Tensor, size: Tensor, least: Tensor, most: Tensor, counts: list[int]) -> FilterTaps:
    """Return taps with normalized weights, of which those of pixels outside of the line are set to 0."""
    # Added one after the other, the sum does not depend on the zeros at the end, whose number other images decide.
    weight = weight / weight.cumsum(-1)[..., -1:]
    last = (size - 1)[:, None, None]
    weight = (weight * ((index >= 0) & (index <= last))).to(torch.float32)
    low, high = (torch.minimum(x[..., None].clamp(min=0), last).long() for x in (least, most))
    index = torch.minimum(torch.maximum(index.long(), low), high)
    return FilterTaps(index, weight, low.flatten().tolist(), (high + 1).flatten().tolist(), counts)


def coverage(box: Tensor, resolution: int) -> Tensor:
    """Return the share of each pixel inside boxes [B,4] (fractions of the view), [B,1,R,R]. Its mean is the box's area."""
    pixel = torch.arange(resolution, device=box.device)
    low, high = (box[:, :2, None] * resolution, (box[:, :2, None] + box[:, 2:, None]) * resolution)
    side = (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0)
    return (side[:, 0, :, None] * side[:, 1, None, :])[:, None].to(torch.float32)
