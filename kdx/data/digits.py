"""Handwritten digits that ship with scikit-learn: real data without a download."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdx.data.source import ArrayImages, Images, Source, SplitName


class Digits(Source):
    """1,797 scans of handwritten digits, 8x8 px, one channel, 10 classes (UCI Optical Recognition of Handwritten Digits).

    The scans count 0..16 dark pixels per cell; here they are uint8, 0..255.
    """

    num_classes = 10
    channels = 1
    flip = False
    mean = (0.3053,)
    std = (0.3760,)

    def splits(self) -> Mapping[SplitName, Images]:
        table = _table()
        images = np.round(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        return {"train": ArrayImages(images, table[:, -1].astype(np.int64))}


def _table() -> NDArray[np.float64]:
    """Return 64 pixels and the class of each scan [N,65], from the file: scikit-learn takes most of a second to import."""
    found = find_spec("sklearn")
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
