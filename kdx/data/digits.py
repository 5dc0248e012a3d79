"""Handwritten digits that ship with scikit-learn: real data without a download."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
        return {"train": ArrayImages(images, bunch.target.astype(np.int64))}
