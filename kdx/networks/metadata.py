"""What trainers keep beside the tensors of a network: class names and normalization, in its file or in a .json next to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kdx.networks import weights
from kdx.networks.weight_files import metadata

LISTS = ("label_names", "class_names", "classes", "labels", "idx_to_class", "id2label", "class_to_idx")  # as trainers call them
INSIDE = ("pretrained_cfg", "hyper_parameters", "args", "meta", "config")  # where they keep them
Colors = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std, of images in [0,1]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Known:
    """What is known of the network in a file: number of classes, their names, mean and std, and where these two stand."""

    num_classes: int | None
    names: Sequence[str] | None = None
    colors: Colors | None = None
    origin: str = ""


def of_file(path: Path, key: str | None = None) -> Known:
    """Return what is known of the network in a weight file, from FILE.json or timm's config.json beside it, or from inside.

    A .json file that states another number of classes is of other weights. Raises ValueError if the weights cannot be read.

    Args:
        path: A weight file.
        key: Where the network is, if the file contains several, as in `weights.load`.
    """
    num_classes = weights.head_classes(path, key)
    beside = {file.name: in_json(file) for file in (path.with_suffix(".json"), path.with_name("config.json"))}
    stated = {file: content for file, content in beside.items() if count(content) in (None, num_classes) or not num_classes}
    contents = {**stated, path.name: metadata(path)}
    names = (found for content in contents.values() if (found := within(content)) and num_classes in (None, len(found)))
    colors = ((pair, origin) for origin, content in contents.items() if (pair := colors_within(content)))
    return Known(num_classes, next(names, None), *next(colors, (None, "")))


def outputs_by_name(path: Path, names: Sequence[str] | None) -> Sequence[int] | None:
    """Return the outputs of a file's network for these classes; [] if it has others; None if the file has no such names.

    Names of another number of classes are not taken for those of the outputs.
    """
    own = of_file(path).names if names is not None else None
    if names is None or own is None or len(own) != len(names):
        return None
    return [own.index(name) for name in names] if set(own) == set(names) else []


def in_json(file: Path) -> Any:
    """Return the content of a .json file; None if it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def within(content: Any) -> Sequence[str] | None:
    """Return the names in the plain data of a checkpoint or card, in the order of the outputs; None if there are none."""
    return first(content, lambda data: next((names for key in LISTS if (names := _listed(data.get(key)))), None))


def colors_within(content: Any) -> Colors | None:
    """Return mean and std in the plain data of a checkpoint or card; None if there are none of images in [0,1]."""
    return first(content, _colors)


def count(content: Any) -> int | None:
    """Return the number of classes that the plain data of a card state; None if they do not."""
    return first(content, lambda data: found if isinstance(found := data.get("num_classes"), int) else None)


def first(content: Any, read: Callable[[Mapping[str, Any]], Found | None]) -> Found | None:
    """Return what `read` finds in plain data or, failing that, in the places where trainers keep more of it."""
    if not isinstance(content, Mapping):
        content = getattr(content, "__dict__", {})  # argparse.Namespace
    if (found := read(content)) is not None:
        return found
    return next((found for key in INSIDE if key in content and (found := first(content[key], read)) is not None), None)


def _colors(data: Mapping[str, Any]) -> Colors | None:
    mean, std = (tuple(values) if isinstance(values := data.get(name), (list, tuple)) else () for name in ("mean", "std"))
    plausible = all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in (*mean, *std)) and all(std)
    return (mean, std) if mean and len(mean) == len(std) and plausible else None


def _listed(value: Any) -> Sequence[str] | None:
    """Return the names of a list, of {index: name}, or of {name: index}."""
    if isinstance(value, Mapping):
        pairs = [(key, name) if isinstance(name, str) else (name, key) for key, name in value.items()]
        try:
            order = {int(index): str(name) for index, name in pairs}
        except (TypeError, ValueError):
            return None
        value = [order.get(index) for index in range(len(order))]
    if isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(name, str) for name in value):
        return list(value)
    return None
