"""Augmentations of the cropped pixels, as pure functions of uniform random numbers.

The same numbers give both networks the same augmentation: geometry is in fractions of the view, so it is consistent across
resolutions. Color operations are skipped for images without 3 channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kdx.ranges import Count, Fraction, NonNegative, Positive, validated
from kdx.views.render import coverage

Floats = NDArray[np.float64]
GRAY = (0.2989, 0.587, 0.114)  # the weights of red, green and blue in ITU-R 601 luma, as in torchvision


class Augmentation(ABC):
    """Base class. `draws` is the number of uniform random numbers needed per image."""

    draws: int = 0

    @abstractmethod
    def apply(self, images: Tensor, numbers: Floats) -> Tensor:
        """Return augmented images [B,C,R,R] in [0,1] from images [B,C,R,R] in [0,1] and uniform numbers [B,draws]."""


class Chain(Augmentation):
    """Applies several augmentations in order, each with its own random numbers."""

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        self.augmentations = list(augmentations)
        self.draws = sum(augmentation.draws for augmentation in self.augmentations)

    def apply(self, images: Tensor, numbers: Floats) -> Tensor:
        for augmentation in self.augmentations:
            share, numbers = np.split(numbers, [augmentation.draws], axis=1)
            images = augmentation.apply(images, share)
        return images


def per_image(values: Floats, images: Tensor) -> Tensor:
    """Return values [B] as a tensor [B,1,1,1] that broadcasts over images."""
    return torch.from_numpy(values).to(images)[:, None, None, None]


def between(low: float, high: float, numbers: Floats) -> Floats:
    """Map uniform numbers in [0, 1) to [low, high)."""
    return low + numbers * (high - low)


def gray(images: Tensor) -> Tensor:
    """Return the luma [B,1,R,R] of RGB images, or the mean over the channels of other images."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    return GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue


@validated
class ColorJitter(Augmentation):
    """Brightness, contrast, saturation (factors in 1 ± amount, at least 0) and hue (± amount of the circle), in that order.

    As torchvision's `ColorJitter`, which however applies the four operations in random order.
    """

    draws = 4

    def __init__(
        self, brightness: NonNegative = 0.4, contrast: NonNegative = 0.4, saturation: NonNegative = 0.4, hue: Fraction = 0.1
    ) -> None:
        if hue > 0.5:
            raise ValueError(f"ColorJitter: hue must be in [0, 0.5], got {hue}")
        self.amounts, self.hue = (brightness, contrast, saturation), hue

    def apply(self, images: Tensor, numbers: Floats) -> Tensor:
        brightness, contrast, saturation = (
            per_image(between(max(0.0, 1 - amount), 1 + amount, numbers[:, i]), images) for i, amount in enumerate(self.amounts)
        )
        images = (images * brightness).clamp(0, 1)
        images = torch.lerp(gray(images).mean((1, 2, 3), keepdim=True), images, contrast).clamp(0, 1)
        if images.shape[1] != 3:
            return images
        images = torch.lerp(gray(images), images, saturation).clamp(0, 1)
        return turned(images, per_image(between(-self.hue, self.hue, numbers[:, 3]), images)) if self.hue else images


def turned(images: Tensor, shift: Tensor) -> Tensor:
    """Return RGB images with the hue shifted by `shift` (1 is the full circle); HSV saturation and value stay the same."""
    (value, _), least = images.max(1, keepdim=True), images.amin(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    span = value - least
    safe = torch.where(span == 0, torch.ones_like(span), span)
    hue = torch.where(
        value == red, (green - blue) / safe, torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    place = (torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None] + hue + 6 * shift) % 6
    return value - span * torch.minimum(place, 4 - place).clamp(0, 1)


@validated
class RandomErasing(Augmentation):
    """Fills, with `probability`, a box of uniform area, log-uniform aspect ratio and uniform position with mid-gray.

    Sides are limited to the size of the view. Pixels on the edge are blended by area, so that the result is consistent across
    resolutions.

    Reference: Zhong et al. 2017, arXiv:1708.04896.
    """

    draws = 5

    def __init__(
        self,
        probability: Fraction = 0.25,
        area: tuple[Positive, Positive] = (0.02, 0.33),
        aspect: tuple[Positive, Positive] = (0.3, 3.3),
    ) -> None:
        if not area[0] <= area[1] <= 1:
            raise ValueError(f"RandomErasing: area must be an interval within (0, 1], got {area}")
        if not aspect[0] <= aspect[1]:
            raise ValueError(f"RandomErasing: aspect must be an interval, smaller number first, got {aspect}")
        self.probability, self.area, self.aspect = probability, area, aspect

    def apply(self, images: Tensor, numbers: Floats) -> Tensor:
        area = between(*self.area, numbers[:, 3])
        aspect = np.exp(between(math.log(self.aspect[0]), math.log(self.aspect[1]), numbers[:, 4]))
        extent = np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], 1).clip(max=1)
        extent *= numbers[:, :1] < self.probability
        box = np.concatenate([numbers[:, 1:3] * (1 - extent), extent], 1)
        return torch.lerp(
            images, torch.full_like(images, 0.5), coverage(torch.from_numpy(box).to(images.device), images.shape[-1])
        )


@validated
class GaussianBlur(Augmentation):
    """Gaussian blur with a standard deviation uniform in `sigma`, in px at a resolution of 224 px; scaled by R / 224."""

    draws = 1

    def __init__(self, sigma: tuple[Positive, Positive] = (0.1, 2.0)) -> None:
        if not sigma[0] <= sigma[1]:
            raise ValueError(f"GaussianBlur: sigma must be an interval, smaller number first, got {sigma}")
        self.sigma = sigma

    def apply(self, images: Tensor, numbers: Floats) -> Tensor:
        batch, channels, resolution = images.shape[:3]
        sigma = torch.from_numpy(between(*self.sigma, numbers[:, 0]) * resolution / 224).to(images)
        radius = min(max(1, math.ceil(3 * self.sigma[1] * resolution / 224)), resolution - 1)
        offset = torch.arange(-radius, radius + 1, device=images.device)
        kernel = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, 1).repeat_interleave(channels, 0)[:, None]
        lines = F.pad(images, [radius] * 4, mode="reflect").flatten(0, 1)[None]
        lines = F.conv2d(lines, kernel[:, :, None], groups=batch * channels)
        return F.conv2d(lines, kernel[:, :, :, None], groups=batch * channels)[0].unflatten(0, (batch, channels))


@validated
class RandAugment(Augmentation):
    """RandAugment: `num_ops` operations, each drawn from fourteen, with one `magnitude` in [0, 30].

    Uses torchvision's operations, magnitudes and whole-pixel geometry, per image on 8-bit values. Saturation does not change
    images without 3 channels.

    Reference: Cubuk et al. 2019, arXiv:1909.13719.
    """

    operations = (
        "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast",
        "sharpness", "posterize", "solarize", "autocontrast", "equalize",
    )  # fmt: skip

    def __init__(self, num_ops: Count = 2, magnitude: Fraction | Count = 9) -> None:
        if magnitude > 30:
            raise ValueError(f"RandAugment: magnitude must be in [0, 30], got {magnitude}")
        self.num_ops, self.strength = num_ops, magnitude / 30
        self.draws = 2 * num_ops

    def apply(self, images: Tensor, numbers: Floats) -> Tensor:
        eight_bit = images.mul(255).round_().to(torch.uint8)
        done = [self._augment(image, row) for image, row in zip(eight_bit, numbers, strict=True)]
        return torch.stack(done).to(images.dtype).div_(255)

    def _augment(self, image: Tensor, numbers: Floats) -> Tensor:
        for number, side in numbers.reshape(self.num_ops, 2):
            image = self.operate(self.operations[int(number * len(self.operations))], image, -1 if side < 0.5 else 1)
        return image

    def operate(self, operation: str, image: Tensor, sign: int) -> Tensor:
        """Return a uint8 image [C,R,R] after one operation; `sign` (1 or -1) is its direction, if it has one."""
        import torchvision.transforms.v2.functional as tv

        amount, resolution = sign * self.strength, image.shape[-1]
        slant, move = math.degrees(math.atan(0.3 * amount)), int(amount * 150 / 331 * resolution)
        affine = lambda shear, translate, center: tv.affine(image, 0.0, translate, 1.0, shear, center=center)  # noqa: E731 - short
        table = {
            "identity": lambda: image,
            "shear_x": lambda: affine([slant, 0.0], [0, 0], [0, 0]),
            "shear_y": lambda: affine([0.0, slant], [0, 0], [0, 0]),
            "translate_x": lambda: affine([0.0, 0.0], [move, 0], None),
            "translate_y": lambda: affine([0.0, 0.0], [0, move], None),
            "rotate": lambda: tv.rotate(image, 30 * amount),
            "brightness": lambda: tv.adjust_brightness(image, 1 + 0.9 * amount),
            "saturation": lambda: tv.adjust_saturation(image, 1 + 0.9 * amount) if len(image) == 3 else image,
            "contrast": lambda: tv.adjust_contrast(image, 1 + 0.9 * amount),
            "sharpness": lambda: tv.adjust_sharpness(image, 1 + 0.9 * amount),
            "posterize": lambda: tv.posterize(image, 8 - round(4 * self.strength)),
            "solarize": lambda: tv.solarize(image, 255 * (1 - self.strength)),
            "autocontrast": lambda: tv.autocontrast(image),
            "equalize": lambda: tv.equalize(image),
        }
        return table[operation]()
