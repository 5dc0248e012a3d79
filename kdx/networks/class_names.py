"""Names of the classes of a network's outputs: as trainers keep them inside of checkpoints, and in timm's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.utils.misc import natural_key

LISTS = ("label_names", "class_names", "classes", "labels", "idx_to_class", "id2label", "class_to_idx")  # as trainers call them
INSIDE = ("pretrained_cfg", "hyper_parameters", "args", "meta", "config")  # where they keep them


def natural_order(names: Sequence[str]) -> list[int]:
    """Return the place of each name in the order by which timm numbers the folders of classes: 2 before 10, a before B."""
    by_name = sorted(range(len(names)), key=lambda k: natural_key(names[k]))
    return sorted(range(len(names)), key=by_name.__getitem__)


def within(content: Any) -> Sequence[str] | None:
    """Return the names in the plain data of a checkpoint or card, in the order of the outputs; None if there are none."""
    if not isinstance(content, Mapping):
        content = getattr(content, "__dict__", {})  # argparse.Namespace
    for key in LISTS:
        if (names := _listed(content.get(key))) is not None:
            return names
    return next((names for key in INSIDE if key in content and (names := within(content[key])) is not None), None)


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
