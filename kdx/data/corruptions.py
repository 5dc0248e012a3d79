"""Shifts of the images that a network is tested on, after ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261).

They change the decoded original, before any view is cut, so that all networks see the same corrupted image. Nothing is
stored: the pixels of an image depend on (seed, index, severity) and on nothing else. Images are uint8 [C,H,W] before and
after, of any size, with one channel or three.
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
Qualities = Annotated[list[Annotated[int, Field(ge=1, le=95)]], Len(5, 5)]  # what libjpeg knows


@dataclass(frozen=True)
class Step:
    """A shift of one severity: a corruption of the images, or the side in px at which the student sees them."""

    severity: int
    corruption: Corruption | None = None
    side: int | None = None

    def of(self, images: Images, seed: int) -> Images:
        """The images as this step leaves them."""
        return images if self.corruption is None else Corrupted(images, self.corruption, self.severity, seed)


class Shift(ABC):
    """What makes test images differ from those that a network learned from, in steps of rising severity."""

    @abstractmethod
    def steps(self, severities: Sequence[int], side: int) -> list[Step]:
        """The steps at these severities, for a student that sees `side` px."""


class Corruption(Shift):
    """A shift that changes pixels, with a severity from 1 to 5."""

    def steps(self, severities: Sequence[int], side: int) -> list[Step]:
        return [Step(severity, corruption=self) for severity in severities]

    @abstractmethod
    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        """The corrupted image, for the image `index` of its split."""


class Corrupted(Images):
    """The same images, corrupted when they are asked for."""

    def __init__(self, images: Images, corruption: Corruption, severity: int, seed: int = 0) -> None:
        if severity not in SEVERITIES:
            raise ValueError(f"severity {severity}: choose from 1 to 5")
        self.images, self.corruption, self.severity, self.seed = images, corruption, severity, seed
        self.labels = images.labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pixels:
        return self.corruption.apply(self.images[index], self.severity, self.seed, int(index))


@validated
class Noise(Corruption):
    """Gaussian noise on every pixel and channel; `std` by severity, for pixels in [0,1].

    The severities of an image scale one draw of noise, so they differ in strength alone.
    """

    def __init__(self, std: Levels) -> None:
        self.std = std

    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        return rounded(image + 255 * self.std[severity - 1] * gaussian(seed, index, image.size).reshape(image.shape))


@validated
class Blur(Corruption):
    """A Gaussian blur; `sigma` in px by severity, for an image whose shorter side is `side` px.

    It grows and shrinks with the image's own shorter side, so it hides the same share of any image. An image of 8 px is
    hardly touched by the constants of ImageNet-C: give a smaller `side`. Beyond the edge the outermost pixels go on; the
    kernel ends at four sigma.
    """

    def __init__(self, sigma: Levels, side: Positive) -> None:
        self.sigma, self.side = sigma, side

    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        sigma = self.sigma[severity - 1] * min(image.shape[1:]) / self.side
        return rounded(smeared(smeared(image.astype(np.float32), sigma, 1), sigma, 2))


@validated
class Jpeg(Corruption):
    """A round trip through JPEG; `quality` by severity, as libjpeg counts it."""

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
    """Every channel drawn towards its mean over the image; by severity, `share` of the distance is left."""

    def __init__(self, share: Fractions) -> None:
        self.share = share

    def apply(self, image: Pixels, severity: int, seed: int, index: int) -> Pixels:
        mean = image.mean((1, 2), keepdims=True)
        return rounded((image - mean) * self.share[severity - 1] + mean)


@validated
class FewerPixels(Shift):
    """The student sees images of fewer pixels: at `sides` px, or else at half, a quarter, ... of its own, down to 4 px."""

    def __init__(self, sides: Annotated[list[Resolution], Len(1)] | None = None) -> None:
        self.sides = sides

    def steps(self, severities: Sequence[int], side: int) -> list[Step]:
        if self.sides is not None:
            return [Step(number, side=own) for number, own in enumerate(sorted(self.sides, reverse=True), 1)]
        return [Step(severity, side=side >> severity) for severity in severities if side >> severity >= 4]


def rounded(pixels: NDArray[np.floating]) -> Pixels:
    """The nearest pixels that uint8 can hold."""
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def gaussian(seed: int, index: int, count: int) -> NDArray[np.float64]:
    """Independent standard normal numbers [count], by Box and Muller (1958), for one image."""
    half = -(-count // 2)
    radius, angle = uniform(seed, "corruption", 0, [index], 2 * half).reshape(2, half)
    length = np.sqrt(-2 * np.log1p(-radius))
    return np.concatenate([length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)])[:count]


def smeared(image: NDArray[np.float32], sigma: float, axis: int) -> NDArray[np.float32]:
    """An image [C,H,W] blurred along one axis; the edge goes on beyond it."""
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
