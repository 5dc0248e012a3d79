"""Which of a network's outputs stand for the classes of a data set, where the two differ.

A network with the 1,000 outputs of ImageNet is measured on a data set with 200 of the classes by its logits of those 200
alone: softmax over them is what is left of its probabilities, renormalized. So ImageNet-A (Hendrycks et al. 2021,
arXiv:1907.07174) and ImageNet-R (Hendrycks et al. 2021, arXiv:2006.16241) are scored.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FORMAT = '{"class of the data set": number of the output, ...}'
REMEDY = f"give class_map=FILE.json with {FORMAT}"

Outputs = NDArray[np.int64]  # [K of the data set]: the output for each label
Names = Sequence[str] | None


def outputs_for(names: Names, num_classes: int, own_names: Names, num_outputs: int) -> Outputs:
    """The outputs [K] for a data set's classes, of a network with outputs called `own_names`.

    Where both know their classes by name, the names decide, else the numbers, if there are as many. ValueError with the
    remedy otherwise.
    """
    if names is not None and own_names is not None:
        return by_name(names, own_names)
    if num_classes != num_outputs:
        unknown = "the data set's classes have no names" if names is None else "its classes have no names here"
        raise ValueError(
            f"the data set has {num_classes} classes and the network {num_outputs}, and {unknown} to match them by: {REMEDY}"
        )
    return np.arange(num_classes)


def by_name(names: Sequence[str], own_names: Sequence[str]) -> Outputs:
    """The place of each of `names` in `own_names`. ValueError, with what is meant, where one is not there."""
    place = {name: number for number, name in enumerate(own_names)}
    absent = [name for name in names if name not in place]
    if absent:
        close = difflib.get_close_matches(absent[0], list(own_names), n=1, cutoff=0.5)
        hint = f" (near: '{close[0]}')" if close else ""
        raise ValueError(
            f"the network has no class '{absent[0]}'{hint}, as {len(absent)} of the data set's {len(names)} classes are "
            f"unknown to it: rename the folders as the network calls its classes, or {REMEDY}"
        )
    return np.array([place[name] for name in names], np.int64)


def from_file(path: Path, names: Names, num_classes: int, num_outputs: int) -> Outputs:
    """The outputs [K] that a JSON file gives for a data set's classes, by name, or by number where they have no names.

    ValueError where the file is no such map, lacks a class, or names an output twice or one that does not exist.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"class_map={path} cannot be read ({error}): give a JSON file with {FORMAT}") from None
    if not isinstance(found, dict) or not all(isinstance(v, int) and not isinstance(v, bool) for v in found.values()):
        raise ValueError(f"class_map={path} is no map of classes: it must hold {FORMAT}")
    known = list(names) if names is not None else [str(label) for label in range(num_classes)]
    for name in known:
        if name not in found:
            close = difflib.get_close_matches(name, list(found), n=1, cutoff=0.5)
            hint = f" (near: '{close[0]}')" if close else ""
            raise ValueError(f"class_map={path} has no class '{name}'{hint}, which the data set has: add it")
    outputs = [found[name] for name in known]
    for name, output in zip(known, outputs, strict=True):
        if not 0 <= output < num_outputs:
            raise ValueError(f"class_map={path}: {name} is output {output}: give a number from 0 to {num_outputs - 1}")
    if len(set(outputs)) < len(outputs):
        twice = next(output for output in outputs if outputs.count(output) > 1)
        raise ValueError(f"class_map={path}: output {twice} stands for two classes: give each class an output of its own")
    return np.array(outputs, np.int64)
