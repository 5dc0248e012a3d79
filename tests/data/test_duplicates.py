"""Images that stand in train and in test are found by their content."""

from __future__ import annotations

from pathlib import Path

import formats
import numpy as np
import pytest

from kdx.data import duplicates
from kdx.data.combined import Unlabeled
from kdx.data.decoding import ImageFiles
from kdx.data.duplicates import PROBE, count_duplicates, stored_duplicates
from kdx.data.source import ArrayImages, Images, Joined, Subset


def test_arrays_are_compared_pixel_by_pixel_also_as_subsets() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4), np.uint8)
    images = ArrayImages(pixels, np.zeros(10, np.int64))
    assert count_duplicates(Subset(images, np.arange(5)), Subset(images, np.arange(5, 10))) == 0
    assert count_duplicates(Subset(images, np.arange(6)), Subset(images, np.arange(4, 10))) == 2
    changed = pixels.copy()
    changed[0, 0, 0, 0] ^= 1
    assert count_duplicates(images, ArrayImages(changed, images.labels)) == 9
    assert count_duplicates(Joined([images, images]), Unlabeled(images)) == 10


def test_files_are_compared_by_content_not_by_name(tmp_path: Path) -> None:
    for i in range(6):
        formats.save(tmp_path / f"{i}.png", formats.smooth(i))
    formats.save(tmp_path / "copy.png", formats.smooth(2))
    train = ImageFiles([str(tmp_path / f"{i}.png") for i in range(4)], np.zeros(4, np.int64), 3)
    names = ["4.png", "5.png", "copy.png", "not there.png"]
    test = ImageFiles([str(tmp_path / name) for name in names], np.zeros(4, np.int64), 3)
    assert count_duplicates(train, test) == 1


def files(folder: Path, contents: list[bytes]) -> ImageFiles:
    """Files with these contents."""
    folder.mkdir()
    for i, content in enumerate(contents):
        (folder / f"{i}.jpg").write_bytes(content)
    return ImageFiles([str(folder / f"{i}.jpg") for i in range(len(contents))], None, 3)


def test_only_files_that_are_equal_in_the_middle_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, tail = bytes(2 * PROBE), bytes(2 * PROBE)
    contents = [head + bytes([i]) * PROBE + tail for i in range(8)]
    train = files(tmp_path / "train", contents[:5])
    test = files(tmp_path / "test", [*contents[5:], contents[0], contents[1][:-1] + b"x", b"short"])
    (tmp_path / "train/4.jpg").unlink()
    read: list[str] = []
    whole = duplicates._whole
    monkeypatch.setattr(duplicates, "_whole", lambda path: read.append(path[-11:]) or whole(path))
    assert count_duplicates(train, test) == 1
    assert sorted(read) == ["/test/3.jpg", "/test/4.jpg", "train/0.jpg", "train/1.jpg"]


def test_what_was_found_in_files_is_stored_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = files(tmp_path / "train", [b"a", b"b"]), files(tmp_path / "test", [b"b", b"c"])
    assert stored_duplicates(train, test, tmp_path / "verified") == 1
    monkeypatch.setattr(duplicates, "_whole", lambda path: pytest.fail("read again"))
    assert stored_duplicates(train, test, tmp_path / "verified") == 1
    monkeypatch.undo()
    (tmp_path / "test/1.jpg").write_bytes(b"a")
    assert stored_duplicates(train, test, tmp_path / "verified") == 2


def test_images_that_cannot_be_compared_are_not_called_different() -> None:
    class Made(Images):
        labels = None

        def __len__(self) -> int:
            return 2

    Made.__abstractmethods__ = frozenset()
    assert count_duplicates(Made(), Made()) is None  # type: ignore[abstract]  # never read
