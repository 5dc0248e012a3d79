"""Distribution shifts of test images, after ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261).

Corruptions change the decoded image before cropping, so that all networks see the same corrupted image. The pixels depend
only on the image and on (seed, index, severity). Images are uint8 [C,H,W] of any size, with one or three channels.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Len
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from kdx.data.source import Images
from kdx.random import uniform
from kdx.ranges import Fraction, NonNegative, Positive, Resolution, validated

SEVERITIES = (1, 2, 3, 4, 5)
Pixels = NDArray[np.uint8]
Levels = Annotated[list[NonNegative], Len(5, 5)]  # one per severity
Fractions = Annotated[list[Fraction], Len(5, 5)]
Qualities = Annotated[list[Annotated[int, Field(ge=1, le=95)]], Len(5, 5)]  # range of libjpeg


@dataclass(frozen=True)
class Step:
    """A shift of one severity: a corruption of the images, or the side in px at which the student sees them."""

    severity: int
    corruption: Corruption | None = None
    side: int | None = None

    def of(self, images: Images, seed: int) -> Images:
        """Return the images after this step."""
        return images if self.corruption is None else Corrupted(images, self.corruption, self.severity, seed)


class Shift(ABC):
    """Base class of distribution shifts, in steps of increasing severity."""

    @abstractmethod
    def steps(self, severities: Sequence[int], side: int) -> list[Step]:
        """Return the steps at these severities, for a student with a resolution of `side` px."""


class Corruption(Shift):
    """A shift that changes pixels, with a severity from 1 to 5."""

    def steps(self, severities: Sequence[int], side: int) -> list[Step]:
        return [Step(severity, corruption=self) for severity in severities]

    @abstractmethod
    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        """Return the corrupted image; `index` is its index in the split, used for random numbers."""


class Corrupted(Images):
    """Images that are corrupted at access."""

    def __init__(self, images: Images, corruption: Corruption, severity: int, seed: int = 0) -> None:
        if severity not in SEVERITIES:
            raise ValueError(f"Invalid severity {severity}; expected 1 to 5: set severities to a subset of 1-5")
        self.images, self.corruption, self.severity, self.seed = images, corruption, severity, seed
        self.labels = images.labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pixels:
        return self.corruption.apply(self.images[index], self.severity, self.seed, int(index))


@validated
class Noise(Corruption):
    """Gaussian noise on every pixel and channel; `std` by severity, for pixels in [0,1].

    All severities of an image scale the same noise, so they differ only in strength.
    """

    def __init__(self, std: Levels) -> None:
        self.std = std

    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        return rounded(image + 255 * self.std[severity - 1] * gaussian(seed, index, image.size).reshape(image.shape))


@validated
class Blur(Corruption):
    """A Gaussian blur; `sigma` in px by severity, for an image whose shorter side is `side` px.

    Sigma scales with the image's shorter side, so that the relative blur is the same for all sizes. The constants of
    ImageNet-C hardly change an image of 8 px: set a smaller `side`. Edge pixels are repeated beyond the border; the kernel is
    truncated at four sigma.
    """

    def __init__(self, sigma: Levels, side: Positive) -> None:
        self.sigma, self.side = sigma, side

    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        sigma = self.sigma[severity - 1] * min(image.shape[1:]) / self.side
        return rounded(smeared(smeared(image.astype(np.float32), sigma, 1), sigma, 2))


@validated
class Jpeg(Corruption):
    """JPEG compression; `quality` by severity, in libjpeg's scale."""

    def __init__(self, quality: Qualities) -> None:
        self.quality = quality

    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(
            file, "JPEG", quality=self.quality[severity - 1]
        )
        with Image.open(file) as again:
            pixels = np.asarray(again)
        return np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), order="C")


@validated
class Contrast(Corruption):
    """Lower contrast: the distance of each channel to its mean over the image is multiplied by `share`, by severity."""

    def __init__(self, share: Fractions) -> None:
        self.share = share

    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        mean = image.mean((1, 2), keepdims=True)
        return rounded((image - mean) * self.share[severity - 1] + mean)


@validated
class FewerPixels(Shift):
    """Lower student resolution: `sides` in px, by default half, a quarter, ... of the student's own, down to 4 px."""

    def __init__(self, sides: Annotated[list[Resolution], Len(1)] | None = None) -> None:
        self.sides = sides

    def steps(self, severities: Sequence[int], side: int) -> list[Step]:
        if self.sides is not None:
            return [Step(number, side=lower) for number, lower in enumerate(sorted(self.sides, reverse=True), 1)]
        return [Step(severity, side=side >> severity) for severity in severities if side >> severity >= 4]


def rounded(pixels: NDArray[np.floating]) -> Pixels:
    """Return the pixels rounded and clipped to uint8."""
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def gaussian(seed: int, index: int, count: int) -> NDArray[np.float64]:
    """Return independent standard normal numbers [count] for one image (Box and Muller 1958)."""
    half = -(-count // 2)
    radius, angle = uniform(seed, "corruption", 0, [index], 2 * half).reshape(2, half)
    length = np.sqrt(-2 * np.log1p(-radius))
    return np.concatenate([length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)])[:count]


def smeared(image: NDArray[np.float32], sigma: float, axis: int) -> NDArray[np.float32]:
    """Return an image [C,H,W] blurred along one axis, with repeated edge pixels."""
    reach = int(4 * sigma + 0.5)
    if not reach:
        return image
    kernel = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    kernel = (kernel / (kernel[0] + 2 * kernel[1:].sum())).astype(np.float32)
    wide = np.moveaxis(np.pad(image, [(reach, reach) if i == axis else (0, 0) for i in range(3)], mode="edge"), axis, 0)
    size = image.shape[axis]
    total = kernel[0] * wide[reach : reach + size]
    for step in range(1, reach + 1):
        total += kernel[step] * (wide[reach - step : reach - step + size] + wide[reach + step : reach + step + size])
    return np.moveaxis(total, 0, axis)
