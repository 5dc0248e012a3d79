"""Crops: rules that draw boxes [B,4] = (top, left, height, width) in fractions of the image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdx.ranges import Count, Fraction, Positive, validated

Floats = NDArray[np.float64]


class Crop(ABC):
    """Draws one box per image. `draws` is the number of uniform numbers needed per image, 0 for a deterministic crop."""

    draws: int = 0

    @abstractmethod
    def boxes(self, uniform: Floats, sizes: NDArray[np.int64]) -> Floats:
        """Return boxes [B,4] from uniform numbers [B,draws] and image sizes [B,2] (height, width in px)."""


class Resize(Crop):
    """The whole image, resized to a square without keeping the aspect ratio."""

    def boxes(self, uniform: Floats, sizes: NDArray[np.int64]) -> Floats:
        return np.tile([0.0, 0.0, 1.0, 1.0], (len(sizes), 1))


@validated
class Center(Crop):
    """The central square whose side is `fraction` of the image's smaller side.

    Resizing the smaller side to 256 and cutting out the central 224 is `fraction=0.875`. With `whole_px=256` the sides of the
    resized image and the corner of the square are whole px, as in big_vision's `resize_small(256)|central_crop(224)`.
    """

    def __init__(self, fraction: Positive = 0.875, whole_px: Count | None = None) -> None:
        if fraction > 1:
            raise ValueError(f"Center: fraction must be in (0, 1], got {fraction}")
        self.fraction, self.whole_px = fraction, whole_px

    def boxes(self, uniform: Floats, sizes: NDArray[np.int64]) -> Floats:
        if self.whole_px is None:
            extent = self.fraction * sizes.min(1, keepdims=True) / sizes
            return np.concatenate([(1 - extent) / 2, extent], 1)
        factor = np.float32(self.whole_px) / sizes.min(1, keepdims=True).astype(np.float32)
        resized = np.rint(sizes.astype(np.float32) * factor).astype(np.int64)
        side = round(self.fraction * self.whole_px)
        return np.concatenate([(resized - side) // 2 / resized, side / resized], 1)


@validated
class Mild(Crop):
    """A box with sides of `fraction` of the image's at a uniform position: random translation without random scale.

    `fraction=0.8` is the mild crop of FunMatch (arXiv:2106.05237): resize to 1.25 R, then crop R x R at random.
    """

    draws = 2

    def __init__(self, fraction: Fraction = 0.8) -> None:
        if fraction == 0:
            raise ValueError("Mild: fraction must be in (0, 1], got 0")
        self.fraction = fraction

    def boxes(self, uniform: Floats, sizes: NDArray[np.int64]) -> Floats:
        return np.concatenate([uniform * (1 - self.fraction), np.full_like(uniform, self.fraction)], 1)


@validated
class Pad(Crop):
    """The whole image, shifted by up to `fraction` of its size in whole pixels; pixels outside of the image are black.

    `fraction=0.125` at 32 px is the CIFAR recipe "pad 4, random crop 32".
    """

    draws = 2

    def __init__(self, fraction: Fraction = 0.125) -> None:
        self.fraction = fraction

    def boxes(self, uniform: Floats, sizes: NDArray[np.int64]) -> Floats:
        most = np.round(self.fraction * sizes)
        shift = np.floor(uniform * (2 * most + 1)) - most
        return np.concatenate([shift / sizes, np.ones_like(shift)], 1)


@validated
class Inception(Crop):
    """A box of random area and aspect ratio at a random position (Inception crop, Szegedy et al. 2015).

    `law="side"` is the distribution of TensorFlow's `sample_distorted_bounding_box`, used by FunMatch: the aspect ratio is
    uniform over the ratios for which a box fits, then the height is uniform over those with an area in range and a box that
    fits; if no ratio fits, the box is the whole image. TensorFlow uses rejection sampling with up to 100 attempts; here its
    limit distribution is sampled directly. `law="area"` is torchvision's `RandomResizedCrop`: uniform area and log-uniform
    aspect ratio, ten attempts, then a center crop.
    """

    def __init__(
        self,
        area: tuple[Positive, Positive] = (0.05, 1.0),
        aspect: tuple[Positive, Positive] = (0.75, 4 / 3),
        law: Literal["side", "area"] = "side",
    ) -> None:
        if not area[0] <= area[1] <= 1:
            raise ValueError(f"Inception: area must be an interval within (0, 1], got {area}")
        if not aspect[0] <= aspect[1]:
            raise ValueError(f"Inception: aspect must be an interval, smaller number first, got {aspect}")
        self.area, self.aspect, self.law = area, aspect, law
        self.draws = 4 if law == "side" else 22

    def boxes(self, uniform: Floats, sizes: NDArray[np.int64]) -> Floats:
        ratio = sizes[:, 0] / sizes[:, 1]  # a box of aspect a and height h (fractions) has width h * a * ratio
        height, width, fits = (self._by_side if self.law == "side" else self._by_area)(uniform, ratio)
        extent = np.stack([height, width], 1)
        place = np.where(fits[:, None], uniform[:, :2], 0.5)
        return np.concatenate([place * (1 - extent), extent], 1)

    def _by_side(self, uniform: Floats, ratio: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        # In fractions of the image: an aspect a has a height h <= 1 with h a <= 1 and h h a >= area if area <= a <= 1 / area.
        low = np.maximum(self.aspect[0] * ratio, self.area[0])
        high = np.minimum(self.aspect[1] * ratio, 1 / self.area[0])
        fits = low <= high * (1 + 1e-12)
        aspect = np.where(fits, low + uniform[:, 2] * (high - low), 1.0)
        least = np.sqrt(self.area[0] / aspect)
        most = np.minimum(np.sqrt(self.area[1] / aspect), np.minimum(1.0, 1.0 / aspect))
        height = np.minimum(least + uniform[:, 3] * (most - least), most)
        return np.where(fits, height, 1.0), np.where(fits, height * aspect, 1.0), fits

    def _by_area(self, uniform: Floats, ratio: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        low, high = np.log(self.aspect)
        area = self.area[0] + uniform[:, 2::2] * (self.area[1] - self.area[0])  # [B, attempts]
        aspect = np.exp(low + uniform[:, 3::2] * (high - low)) * ratio[:, None]
        height, width = np.sqrt(area / aspect), np.sqrt(area * aspect)
        each = (height <= 1) & (width <= 1)
        first, fits = each.argmax(1)[:, None], each.any(1)
        pick = lambda x: np.take_along_axis(x, first, 1)[:, 0]  # noqa: E731 - short
        center = np.clip(1 / ratio, *self.aspect) * ratio
        return (
            np.where(fits, pick(height), np.minimum(1.0, 1.0 / center)),
            np.where(fits, pick(width), np.minimum(1.0, center)),
            fits,
        )
