"""timm's metadata of published weights: normalization, image size and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import timm
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset


@dataclass(frozen=True)
class Published:
    """Number of classes, mean, std and side in px that an architecture's published weights were trained with."""

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int


def published(architecture: str) -> Published | None:
    """Return timm's metadata of `architecture`, with or without a tag; None if there is none."""
    cfg = timm.models.get_pretrained_cfg(architecture)
    if cfg is None or cfg.num_classes is None:
        return None
    return Published(cfg.num_classes, tuple(cfg.mean), tuple(cfg.std), int(cfg.input_size[-1]))


def class_names(num_classes: int) -> Sequence[str] | None:
    """Return the synsets of the outputs of timm's networks, inferred from their number (1000: ImageNet-1k), or None."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return None
    names: list[str] = ImageNetInfo(subset).label_names()
    return names
