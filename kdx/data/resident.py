"""Splits that are decoded once and kept on the device, if they fit."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kdx.data.source import BadImageError, Images, checked_image, image_name
from kdx.ranges import ShapeError

OnBadImage = Literal["raise", "skip"]
LoaderKind = Literal["auto", "resident", "streamed"]
SAMPLE = 64  # images that tell whether a split can be resident


class TooLargeError(ValueError):
    """Images that do not fit into the memory that is meant for them."""


def decode(
    images: Images, index: NDArray[np.int64], on_bad_image: OnBadImage, budget: float = math.inf
) -> tuple[list[torch.Tensor], dict[int, str]]:
    """Return the images that can be decoded, uint8 [C,H,W] each, and the errors of the others: index -> message.

    Raises:
        BadImageError: an image cannot be decoded, and `on_bad_image` is "raise".
        TooLargeError: all images on one canvas, as high and as wide as the largest, would have more than `budget` bytes.
        ShapeError: an image is not uint8 [C,H,W], or has another number of channels than those before.
    """
    decoded: list[torch.Tensor] = []
    bad: dict[int, str] = {}
    height = width = 0
    for i in index.tolist():
        try:
            decoded.append(torch.from_numpy(checked_image(images[i], images, i)))
            height, width = max(height, decoded[-1].shape[1]), max(width, decoded[-1].shape[2])
            if len(index) * len(decoded[0]) * height * width > budget:
                raise TooLargeError(f"{image_name(images, i)} makes the canvas {height} x {width} px")
            if len(decoded[-1]) != len(decoded[0]):
                raise ShapeError(
                    f"{image_name(images, i)} has {len(decoded[-1])} channels; expected {len(decoded[0])} as before: "
                    "convert all images to gray or all to RGB"
                )
        except BadImageError as error:
            if on_bad_image == "raise":
                raise
            bad[i] = str(error)
    return decoded, bad


class Resident:
    """A split decoded once, on `device`: one canvas uint8 [N,C,H,W], sizes [N,2], labels [N]; bad images are 0.

    The canvas is as high and as wide as the largest image. Raises TooLargeError if it would have more than `budget` bytes; a
    sample from all over the split is decoded first, so that this is mostly known at once.
    """

    def __init__(
        self,
        images: Images,
        on_bad_image: OnBadImage = "raise",
        device: torch.device | str = "cpu",
        budget: float = math.inf,
    ) -> None:
        index = np.arange(len(images))
        if budget < math.inf and len(index):
            sample = index[:: -(-len(index) // SAMPLE)]
            decode(images, sample, "skip", budget * len(sample) / len(index))
        decoded, self.skipped = decode(images, index, on_bad_image, budget)
        good = np.setdiff1d(index, list(self.skipped))
        if not decoded:
            raise BadImageError(f"none of {len(images)} images can be decoded: {next(iter(self.skipped.values()), 'empty')}")
        self.sizes = np.zeros((len(images), 2), np.int64)
        self.sizes[good] = [image.shape[1:] for image in decoded]
        canvas = torch.zeros(len(images), len(decoded[0]), *self.sizes.max(0).tolist(), dtype=torch.uint8)
        for i, image in zip(good, decoded, strict=True):
            canvas[i, :, : image.shape[1], : image.shape[2]] = image
        self.pixels = canvas.to(device)
        self.labels = None if images.labels is None else torch.from_numpy(images.labels).to(device)


def resident(
    images: Images, kind: LoaderKind, budget: int, on_bad_image: OnBadImage, device: torch.device | str
) -> Resident | None:
    """Return the images on `device`, or None if they are to be streamed: with "auto", if they have more than `budget` bytes."""
    if kind == "streamed" or (kind == "auto" and not budget):
        return None
    try:
        return Resident(images, on_bad_image, device, budget if kind == "auto" else math.inf)
    except TooLargeError:
        return None
