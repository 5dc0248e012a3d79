"""What the splits of a user's own source must be: mistakes are named with the class and the remedy, by their first image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdx.data.cache import key
from kdx.data.source import ArrayImages, BadImageError, Images, Joined, Source, Subset, check_splits, image_name
from kdx.ranges import ShapeError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 7), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


class Mine(Images):
    """Images of any kind."""

    def __init__(self, images: Any, labels: Any = LABELS) -> None:
        self.images_of_mine, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images_of_mine)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images_of_mine[index]


class Own(Source):
    """A source as a user writes it."""

    num_classes = 3

    def __init__(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)

    def splits(self) -> Mapping[Any, Images]:
        raise NotImplementedError


GOOD = ArrayImages(PIXELS, LABELS)
MISTAKES: dict[str, tuple[Source, Any, str]] = {
    "a tuple": (
        Own(),
        (GOOD, GOOD),
        r"Own.splits\(\) returned a tuple; expected a mapping of split to Images: return \{\"train\"",
    ),
    "nothing": (Own(), None, r"Own.splits\(\) returned a NoneType; expected a mapping"),
    "another key": (Own(), {"valid": GOOD}, r"Own.splits\(\) has the key 'valid'; expected train, val, test: rename it"),
    "an array": (Own(), {"train": PIXELS}, r"Own.splits\(\)\['train'\] is a ndarray; expected Images: return ArrayImages"),
    "a pair": (Own(), {"val": (PIXELS, LABELS)}, r"\['val'\] is a tuple; expected Images"),
    "channels last": (
        Own(),
        {"train": Mine(PIXELS.transpose(0, 2, 3, 1))},
        r"image 0 of Mine is uint8 \[5, 7, 3\]; expected \[3, H, W\], .*: use .transpose\(2, 0, 1\)",
    ),
    "floats": (Own(), {"train": Mine(PIXELS / 255)}, r"image 0 of Mine is float64 \[3, 5, 7\].*\.astype\(np.uint8\)"),
    "gray without a channel": (Own(channels=1), {"val": Mine(PIXELS[:, 0])}, r"image 0 of Mine is uint8 \[5, 7\].*\[None\]"),
    "a list": (Own(), {"train": Mine(PIXELS.tolist())}, r"image 0 of Mine is a list; expected uint8 \[C, H, W\]"),
    "other channels": (Own(), {"train": Mine(PIXELS[:, :1])}, r"is uint8 \[1, 5, 7\]; expected \[3, H, W\].*channels = 1"),
    "labels but no number of classes": (
        Own(num_classes=None),
        {"train": GOOD},
        r"Own has labels, .*set num_classes = 3, or more",
    ),
    "labels of another type": (
        Own(),
        {"train": Mine(PIXELS, LABELS.tolist())},
        r"labels of Mine are list \[6\]; expected int64",
    ),
    "a label too many": (Own(num_classes=2), {"train": GOOD}, r"labels of ArrayImages contain 2; expected 0 to 1"),
    "no labels": (Own(), {"test": ArrayImages(PIXELS, None)}, r"test of Own has no labels, although Own.labels is True"),
    "no labels of train": (
        Own(),
        {"train": ArrayImages(PIXELS, None)},
        r"train of Own .* Own.train_labels is True: give labels",
    ),
}


@pytest.mark.parametrize(("source", "splits", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_of_a_source_are_named(source: Source, splits: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_splits(source, splits)


def test_right_sources_pass() -> None:
    class Damaged(Mine):
        def __getitem__(self, index: int) -> NDArray[np.uint8]:
            raise BadImageError("damaged")

    check_splits(Own(), {"train": GOOD, "val": Mine(PIXELS), "test": Damaged(PIXELS)})
    check_splits(Own(train_labels=False), {"train": ArrayImages(PIXELS, None), "val": GOOD})
    check_splits(Own(num_classes=None, labels=False, train_labels=False), {"train": ArrayImages(PIXELS[:0], None)})


def test_joined_images_are_one_after_the_other() -> None:
    parts = [GOOD, Subset(GOOD, np.array([4, 2])), ArrayImages(PIXELS[:0], LABELS[:0]), Mine(PIXELS)]
    joined = Joined(parts)
    expected = np.concatenate([PIXELS, PIXELS[[4, 2]], PIXELS])
    assert len(joined) == 14
    np.testing.assert_array_equal([joined[i] for i in range(14)], expected)
    np.testing.assert_array_equal(joined.labels, np.concatenate([LABELS, LABELS[[4, 2]], LABELS]))
    assert [image_name(joined, i) for i in (5, 6, 13)] == [
        "image 5 of ArrayImages",
        "image 4 of ArrayImages",
        "image 5 of Mine",
    ]
    assert Joined([GOOD, ArrayImages(PIXELS, None)]).labels is None
    assert key(joined, "all") == key(Joined(parts), "all") != key(Joined(parts[:3]), "all")
