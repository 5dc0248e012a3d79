"""Which columns of a parquet file are images and labels, by its schema and the features that `datasets` states there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdx.config.errors import nearest

METADATA = b"huggingface"  # the key in the schema's metadata
IMAGES, LABELS = ("image", "img"), ("label", "labels", "class", "target", "category")  # usual names, the first preferred
Features = Mapping[str, Sequence[str] | str | None]  # by column: IMAGE, the names of classes, None if those are not known
IMAGE = "image"


@dataclass(frozen=True)
class Columns:
    """The column of the images, where their bytes are in it, the column of the labels, and the names of the classes."""

    image: str
    content: str  # dotted path of the bytes
    label: str
    names: Sequence[str] | None


def stated_in_schema(metadata: Mapping[bytes, bytes] | None) -> Features:
    """Return the features in a schema's metadata; empty if there are none."""
    try:
        stated = json.loads((metadata or {})[METADATA])["info"]["features"]
        return {str(name): _feature(one.get("_type"), one) for name, one in stated.items() if _is_known(one.get("_type"))}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def stated_in_card(card: Mapping[str, Any], config: str) -> Features:
    """Return the features in `dataset_info` of a card's metadata; empty if there are none, or if they are malformed."""
    info = card.get("dataset_info")
    parts = [one for one in (info if isinstance(info, list) else [info]) if isinstance(one, Mapping)]
    part = next((one for one in parts if one.get("config_name", config) == config), {})
    try:
        return {
            str(one["name"]): IMAGE if one["dtype"] == "image" else _feature("ClassLabel", one["dtype"]["class_label"])
            for one in part.get("features") or ()
            if one["dtype"] == "image" or (isinstance(one["dtype"], Mapping) and "class_label" in one["dtype"])
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _is_known(kind: Any) -> bool:
    return kind in ("Image", "ClassLabel")


def _feature(kind: str, stated: Mapping[str, Any]) -> Sequence[str] | str | None:
    if kind == "Image":
        return IMAGE
    names = stated.get("names")
    if isinstance(names, Mapping):  # of a card: {"0": "cat", "1": "dog"}
        names = [names[key] for key in sorted(names, key=int)]
    return [str(name) for name in names] if isinstance(names, list) and names else None


def choose(schema: Any, stated: Features, image: str | None, label: str | None, title: str) -> Columns:
    """Return the columns of images and labels.

    Args:
        schema: Of pyarrow.
        stated: The features, as far as they are stated.
        image: The name of the column of images; None to infer it.
        label: The same of labels.
        title: Of the data set, for messages.

    Raises:
        ValueError: If they cannot be inferred or if a given column is missing or holds something else.
    """
    columns = {name: schema.field(name).type for name in schema.names}
    with_bytes = {name: path for name, kind in columns.items() if (path := _content(name, kind)) is not None}
    by_features = [name for name in with_bytes if stated.get(name) == IMAGE]
    chosen = _pick("image", image, by_features or list(with_bytes), IMAGES, list(with_bytes), columns, title)
    classes = [name for name, kind in columns.items() if _is_label(kind)]
    by_features = [name for name in classes if name in stated and stated[name] != IMAGE]
    usual = [name for name in classes if name.lower() in LABELS]
    target = _pick("label", label, by_features or usual, LABELS, [name for name in classes if name != chosen], columns, title)
    names = stated.get(target)
    return Columns(chosen, with_bytes[chosen], target, None if names is None or isinstance(names, str) else names)


def _pick(
    what: str,
    given: str | None,
    likely: Sequence[str],
    usual: Sequence[str],
    possible: Sequence[str],
    columns: Mapping[str, Any],
    title: str,
) -> str:
    key = f"data.source.{what}"
    if given is not None:
        if given not in columns:
            hint = nearest(given, list(columns))
            raise ValueError(f"{title} has no column '{given}'.{hint} Available: {key}={'|'.join(possible) or 'none'}")
        if given not in possible:
            expected = "the bytes of image files" if what == "image" else "one integer or text per image"
            raise ValueError(
                f"{key}={given}: the column is {columns[given]}; expected {expected}. Available: {'|'.join(possible) or 'none'}"
            )
        return given
    named = [name for word in usual for name in likely if name.lower() == word]
    if len(likely) == 1 or named:
        return likely[0] if len(likely) == 1 else named[0]
    if not likely:
        described = ", ".join(f"{name} ({kind})" for name, kind in columns.items() if not str(kind).startswith("struct"))
        remedy = f"choose it with {key}={'|'.join(possible)}" if possible else "use another data set"
        raise ValueError(f"{title} has no column of {what}s among {described or ', '.join(columns)}: {remedy}")
    raise ValueError(f"{title} has several columns of {what}s: choose one of {key}={'|'.join(likely)}")


def _content(name: str, kind: Any) -> str | None:
    """Return the path of the bytes in a column; None if it has none."""
    from pyarrow import types  # type: ignore[import-untyped]  # it has no types

    if types.is_binary(kind) or types.is_large_binary(kind):
        return name
    if types.is_struct(kind) and (index := kind.get_field_index("bytes")) >= 0:
        inner = kind.field(index).type
        return f"{name}.bytes" if types.is_binary(inner) or types.is_large_binary(inner) else None
    return None


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))
