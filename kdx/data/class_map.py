"""Mapping from the classes of a data set to the outputs of a network.

A network with ImageNet's 1,000 outputs is evaluated on a data set with 200 of the classes by the logits of those 200 only;
softmax over them gives its renormalized probabilities. This is the protocol of ImageNet-A (Hendrycks et al. 2021,
arXiv:1907.07174) and ImageNet-R (Hendrycks et al. 2021, arXiv:2006.16241).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdx.run.files import replacing

FORMAT = '{"class of the data set": number of the output, ...}'
REMEDY = f"give class_map=FILE.json with {FORMAT}"

Outputs = NDArray[np.int64]  # [K of the data set]: the output for each label
Names = Sequence[str] | None


def outputs_for(names: Names, num_classes: int, own_names: Names, num_outputs: int) -> Outputs:
    """Return the network's outputs [K] for the classes of a data set.

    Classes are matched by name if both `names` and `own_names` (of the network's outputs) are given, else by number. Raises
    ValueError, with the remedy, if the names are missing and the numbers of classes differ.
    """
    if names is not None and own_names is not None:
        return by_name(names, own_names)
    if num_classes != num_outputs:
        side = "data set's classes" if names is None else "network's outputs"
        raise ValueError(
            f"The data set has {num_classes} classes and the network {num_outputs}; the names of the {side} are missing, so "
            f"they cannot be matched: {REMEDY}"
        )
    return np.arange(num_classes)


def by_name(names: Sequence[str], own_names: Sequence[str]) -> Outputs:
    """Return the index of each of `names` in `own_names`. Raises ValueError, with a suggestion, if one is missing."""
    place = {name: number for number, name in enumerate(own_names)}
    absent = [name for name in names if name not in place]
    if absent:
        close = difflib.get_close_matches(absent[0], list(own_names), n=1, cutoff=0.5)
        hint = f" (near: '{close[0]}')" if close else ""
        raise ValueError(
            f"Unknown class '{absent[0]}' for the network{hint}; it lacks {len(absent)} of {len(names)} classes: "
            f"rename the folders to the network's class names, or {REMEDY}"
        )
    return np.array([place[name] for name in names], np.int64)


def from_file(path: Path, names: Names, num_classes: int, num_outputs: int) -> Outputs:
    """Return the outputs [K] that a JSON file lists for the data set's classes, by name, or by number without names.

    Raises ValueError if the file is invalid, lacks a class, or uses an output twice or one out of range.
    """
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"class_map={path} cannot be read ({error}): give a JSON file with {FORMAT}") from None
    if not isinstance(mapping, dict) or not all(isinstance(v, int) and not isinstance(v, bool) for v in mapping.values()):
        raise ValueError(f"class_map={path} is not a map of classes; expected {FORMAT}: correct the file")
    classes = _keys(names, num_classes)
    for name in classes:
        if name not in mapping:
            close = difflib.get_close_matches(name, list(mapping), n=1, cutoff=0.5)
            hint = f" (near: '{close[0]}')" if close else ""
            raise ValueError(f"class_map={path} lacks the class '{name}'{hint} of the data set: add it")
    outputs = [mapping[name] for name in classes]
    for name, output in zip(classes, outputs, strict=True):
        if not 0 <= output < num_outputs:
            raise ValueError(f"class_map={path}: invalid output {output} of {name}: set a number from 0 to {num_outputs - 1}")
    if len(set(outputs)) < len(outputs):
        twice = next(output for output in outputs if outputs.count(output) > 1)
        raise ValueError(f"class_map={path}: output {twice} is used for two classes: set a different output for each class")
    return np.array(outputs, np.int64)


def write(path: Path, names: Names, outputs: Sequence[int]) -> None:
    """Write the outputs [K] for the data set's classes to a file that `from_file` reads."""
    content = json.dumps(dict(zip(_keys(names, len(outputs)), outputs, strict=True)), indent=2, ensure_ascii=False)
    with replacing(path) as draft:
        draft.write_text(content + "\n", encoding="utf-8")


def _keys(names: Names, num_classes: int) -> list[str]:
    names = list(names or ())[:num_classes]
    return [*names, *map(str, range(len(names), num_classes))]  # data.num_classes may be more than the names
