"""Images that stand in train and in test are found by their content."""

from __future__ import annotations

from pathlib import Path

import formats
import numpy as np

from kdx.data.decoding import ImageFiles
from kdx.data.duplicates import count_duplicates
from kdx.data.source import ArrayImages, Subset


def test_arrays_are_compared_pixel_by_pixel_also_as_subsets() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4), np.uint8)
    images = ArrayImages(pixels, np.zeros(10, np.int64))
    assert count_duplicates(Subset(images, np.arange(5)), Subset(images, np.arange(5, 10))) == 0
    assert count_duplicates(Subset(images, np.arange(6)), Subset(images, np.arange(4, 10))) == 2
    changed = pixels.copy()
    changed[0, 0, 0, 0] ^= 1
    assert count_duplicates(images, ArrayImages(changed, images.labels)) == 9


def test_files_are_compared_by_content_not_by_name(tmp_path: Path) -> None:
    for i in range(6):
        formats.save(tmp_path / f"{i}.png", formats.smooth(i))
    formats.save(tmp_path / "copy.png", formats.smooth(2))
    train = ImageFiles([str(tmp_path / f"{i}.png") for i in range(4)], np.zeros(4, np.int64), 3)
    names = ["4.png", "5.png", "copy.png", "not there.png"]
    test = ImageFiles([str(tmp_path / name) for name in names], np.zeros(4, np.int64), 3)
    assert count_duplicates(train, test) == 1
