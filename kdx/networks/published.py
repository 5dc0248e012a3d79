"""What timm says about an architecture: how its published weights want to be fed, and which classes they know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import timm
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset


@dataclass(frozen=True)
class Published:
    """Classes, colors and side in px that an architecture's published weights were trained with."""

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int


def published(architecture: str) -> Published | None:
    """What timm says about `architecture`, with or without a tag; None where it says nothing."""
    cfg = timm.models.get_pretrained_cfg(architecture)
    if cfg is None or cfg.num_classes is None:
        return None
    return Published(cfg.num_classes, tuple(cfg.mean), tuple(cfg.std), int(cfg.input_size[-1]))


def class_names(num_classes: int) -> Sequence[str] | None:
    """The synsets that outputs of timm's networks stand for, known by their number alone: 1000 are ImageNet-1k's; or None."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return None
    names: list[str] = ImageNetInfo(subset).label_names()
    return names
