"""timm's metadata of published weights: normalization, image size and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.utils.misc import natural_key

from kdx.networks import metadata


@dataclass(frozen=True)
class Published:
    """Number of classes, mean and std that weights were trained with; side in px and class names, where they are known.

    Without `has_weights`, there are none, and these are only the architecture's defaults.
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int | None = None
    names: Sequence[str] | None = None
    has_weights: bool = True


def published(architecture: str) -> Published | None:
    """Return timm's metadata of `architecture`, with or without a tag, or of a `local-dir:FOLDER`; None if there is none."""
    source, _, folder = architecture.partition(":")
    if source == "local-dir":
        return _in_folder(Path(folder))
    cfg = None if folder else timm.models.get_pretrained_cfg(architecture)
    if cfg is None or cfg.num_classes is None:
        return None
    mean, std = tuple(cfg.mean), tuple(cfg.std)
    return Published(cfg.num_classes, mean, std, int(cfg.input_size[-1]), cfg.label_names, bool(cfg.has_weights))


def _in_folder(folder: Path) -> Published | None:
    content = metadata.in_json(folder / "config.json")
    num_classes, colors = metadata.count(content), metadata.colors_within(content)
    if num_classes is None or colors is None:
        return None
    size = metadata.first(content, lambda data: data.get("input_size"))
    return Published(num_classes, *colors, size[-1] if size else None, metadata.within(content))


def class_names(num_classes: int) -> Sequence[str] | None:
    """Return the synsets of the outputs of timm's networks, inferred from their number (1000: ImageNet-1k), or None."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return None
    names: list[str] = ImageNetInfo(subset).label_names()
    return names


def natural_order(names: Sequence[str]) -> list[int]:
    """Return the place of each name in the order by which timm numbers the folders of classes: 2 before 10, a before B."""
    by_name = sorted(range(len(names)), key=lambda k: natural_key(names[k]))
    return sorted(range(len(names)), key=by_name.__getitem__)
