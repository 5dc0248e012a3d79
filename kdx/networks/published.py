"""timm's metadata of published weights: normalization, image size and classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from kdx.networks.class_names import within
from kdx.networks.weight_files import metadata


@dataclass(frozen=True)
class Published:
    """Number of classes, mean and std that weights were trained with; side in px and class names, where they are known."""

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int | None = None
    names: Sequence[str] | None = None


def published(architecture: str) -> Published | None:
    """Return timm's metadata of `architecture`, with or without a tag, or of a `local-dir:FOLDER`; None if there is none."""
    source, _, folder = architecture.partition(":")
    if source == "local-dir":
        return _in_json(Path(folder, "config.json"))
    cfg = None if folder else timm.models.get_pretrained_cfg(architecture)
    if cfg is None or cfg.num_classes is None:
        return None
    return Published(cfg.num_classes, tuple(cfg.mean), tuple(cfg.std), int(cfg.input_size[-1]), cfg.label_names)


def beside(weights: Path) -> Published | None:
    """Return the metadata in the .json of the same name, as kdx writes it, or in timm's config.json; None without both."""
    return _in_json(weights.with_suffix(".json")) or _in_json(weights.with_name("config.json"))


def names_of(weights: Path) -> Sequence[str] | None:
    """Return the class names of a file's network, in the order of its outputs: from beside or inside the file; None without."""
    known = beside(weights)
    return known.names if known is not None else within(metadata(weights))


def outputs_by_name(weights: Path, names: Sequence[str] | None) -> Sequence[int] | None:
    """Return the outputs of a file's network for these classes; [] if it has others; None if the file has no such names.

    Names of another number of classes are not taken for those of the outputs.
    """
    own = names_of(weights) if names is not None else None
    if names is None or own is None or len(own) != len(names):
        return None
    return [own.index(name) for name in names] if set(own) == set(names) else []


def _in_json(file: Path) -> Published | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        cfg = {**content, **content.get("pretrained_cfg", {})}
        side, names = cfg.get("input_size", [None])[-1], cfg.get("label_names")
        return Published(int(cfg["num_classes"]), tuple(cfg["mean"]), tuple(cfg["std"]), side, names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def class_names(num_classes: int) -> Sequence[str] | None:
    """Return the synsets of the outputs of timm's networks, inferred from their number (1000: ImageNet-1k), or None."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return None
    names: list[str] = ImageNetInfo(subset).label_names()
    return names
