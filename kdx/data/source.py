"""Base classes of images and data sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class BadImageError(ValueError):
    """An image that cannot be decoded. The message names the file and the remedy."""


class Images(ABC):
    """A sequence of decoded images, uint8 [C,H,W], and their `labels`, int64 [N], None where there are none.

    Instances are sent to worker processes, so they hold paths, not open files. `__getitem__` raises BadImageError.
    """

    labels: NDArray[np.int64] | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...


class ArrayImages(Images):
    """Images that are in memory already, uint8 [N,C,H,W]."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]


class Subset(Images):
    """Some of the images, in the given order."""

    def __init__(self, images: Images, index: NDArray[np.int64]) -> None:
        self.images, self.index = images, index
        self.labels = None if images.labels is None else images.labels[index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[int(self.index[index])]


class Source(ABC):
    """A data set. Attributes describe it without reading files; `check` verifies that it exists; `splits` reads it.

    A constructor only stores its arguments and does not access files.
    """

    num_classes: int | None  # None: unlabeled, the number of classes comes from the teacher
    train_labels: bool = True  # whether train has labels
    labels: bool = True  # whether val and test have labels
    names: Sequence[str] | None = None  # class names in label order, if any
    channels: int = 3
    flip: bool = True  # whether a mirrored image keeps its label
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def check(self) -> None:  # noqa: B027 - most sources have nothing to look for
        """Raise ValueError, with the layout that is expected and how to get the data, if it is not there. Fast."""

    @abstractmethod
    def splits(self) -> Mapping[SplitName, Images]:
        """The data set's own splits. Those it lacks are carved from others by `kdx.data.splits`."""
