"""Base classes of images and data sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdx.ranges import ShapeError

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class BadImageError(ValueError):
    """An image that cannot be decoded. The message names the file and the remedy."""


@dataclass(frozen=True)
class Decoding:
    """How image files are decoded: none with more than `max_pixels`; a JPEG at 1/2, 1/4 or 1/8 if both sides keep `jpeg_px`."""

    max_pixels: int | None = None
    jpeg_px: int | None = None


class Images(ABC):
    """A sequence of decoded images, uint8 [C,H,W], and their `labels`, int64 [N], None where there are none.

    Instances are sent to worker processes, so they hold paths, not open files. `__getitem__` raises BadImageError.
    """

    labels: NDArray[np.int64] | None
    decoding: Decoding = Decoding()  # of files, set by `set_decoding`

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...

    def origins(self, index: NDArray[np.int64]) -> list[tuple[Images, NDArray[np.int64]]]:
        """Return who reads these images in the end, past subsets and the like, with their indices there."""
        return [(self, index)]


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

    def origins(self, index: NDArray[np.int64]) -> list[tuple[Images, NDArray[np.int64]]]:
        return self.images.origins(self.index[index])


class Joined(Images):
    """The images of several splits, one after the other; without labels if one of them has none."""

    def __init__(self, parts: Sequence[Images]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])
        labels = [part.labels for part in self.parts]
        self.labels = None if any(one is None for one in labels) else np.concatenate([one for one in labels if one is not None])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        part = int(np.searchsorted(self.starts, index, "right")) - 1
        return self.parts[part][int(index - self.starts[part])]

    def origins(self, index: NDArray[np.int64]) -> list[tuple[Images, NDArray[np.int64]]]:
        number = np.searchsorted(self.starts, index, "right") - 1
        within = [index[number == part] - self.starts[part] for part in range(len(self.parts))]
        return [origin for part, own in zip(self.parts, within, strict=True) if len(own) for origin in part.origins(own)]


def set_decoding(images: Images, decoding: Decoding) -> None:
    """Let `images`, and the images that they are taken from, decode files in this way."""
    images.decoding = decoding
    for inner in (*getattr(images, "parts", ()), getattr(images, "images", None)):
        if isinstance(inner, Images):
            set_decoding(inner, decoding)


def image_name(images: Images, index: int) -> str:
    """Return "image INDEX of CLASS" with the class that reads the image and its index there."""
    ((reader, own),) = images.origins(np.array([index]))
    return f"image {own[0]} of {type(reader).__name__}"


def checked_image(pixels: NDArray[np.uint8], images: Images, index: int) -> NDArray[np.uint8]:
    """Return `pixels` if they are uint8 [C,H,W]; else raise ShapeError, which names the class and the index."""
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3:
        return pixels
    returned, remedy = f"a {type(pixels).__name__}", "return np.asarray(...)"
    if isinstance(pixels, np.ndarray):
        returned = f"{pixels.dtype} {list(pixels.shape)}"
        remedy = "scale it to 0-255 and use .astype(np.uint8)" if pixels.ndim == 3 else "give gray images a channel, [None]"
    raise ShapeError(f"{image_name(images, index)} is {returned}; expected uint8 [C, H, W]: {remedy}")


def check_splits(source: Source, splits: object) -> None:
    """Raise ShapeError, which names the class, unless `splits` are those of `source`. Reads the first image of each split.

    A first image that cannot be decoded is not reported.
    """
    name = type(source).__name__
    if not isinstance(splits, Mapping):
        raise ShapeError(
            f"{name}.splits() returned a {type(splits).__name__}; expected a mapping of split to Images: "
            'return {"train": Images, "val": Images, "test": Images}, of which val and test may be missing'
        )
    for split, images in splits.items():
        if split not in SPLITS:
            raise ShapeError(f"{name}.splits() has the key {split!r}; expected {', '.join(SPLITS)}: rename it")
        if not isinstance(images, Images):
            raise ShapeError(
                f"{name}.splits()['{split}'] is a {type(images).__name__}; expected Images: "
                "return ArrayImages(uint8 [N,C,H,W], labels), or a class of your own that derives from kdx.data.source.Images"
            )
        labeled = source.train_labels if split == "train" else source.labels
        if labeled and images.labels is None:
            flag = "train_labels" if split == "train" else "labels"
            raise ShapeError(
                f"{split} of {name} has no labels, although {name}.{flag} is True: give labels, or set it to False"
            )
        if images.labels is not None:
            num_classes = getattr(source, "num_classes", None)
            if num_classes is None and labeled:
                found = int(np.max(images.labels, initial=0)) + 1
                raise ShapeError(f"{name} has labels, but its num_classes is None: set num_classes = {found}, or more")
            check_labels(images, num_classes or int(np.max(images.labels, initial=0)) + 1)
        _check_first(source, images)


def _check_first(source: Source, images: Images) -> None:
    try:
        pixels = checked_image(images[0], images, 0) if len(images) else None
    except BadImageError:
        return
    if pixels is not None and len(pixels) != source.channels:
        last = pixels.shape[-1] == source.channels
        remedy = "use .transpose(2, 0, 1)" if last else f"convert it, or set channels = {len(pixels)} of the source"
        raise ShapeError(
            f"{image_name(images, 0)} is uint8 {list(pixels.shape)}; expected [{source.channels}, H, W], because the source "
            f"has channels = {source.channels}: {remedy}"
        )


def check_labels(images: Images, num_classes: int) -> None:
    """Raise ShapeError unless the labels are integers [N] from 0 to `num_classes` - 1, or None. Reads no image."""
    labels, reader = images.labels, images
    while isinstance(reader, Subset):
        reader = reader.images
    name = type(reader).__name__
    if labels is None:
        return
    if not isinstance(labels, np.ndarray) or labels.shape != (len(images),) or labels.dtype != np.int64:
        returned = f"{getattr(labels, 'dtype', type(labels).__name__)} {list(np.shape(labels))}"
        raise ShapeError(
            f"labels of {name} are {returned}; expected int64 [{len(images)}]: use np.array(labels, np.int64), one per image"
        )
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise ShapeError(
            f"labels of {name} contain {outside[0]}; expected 0 to {num_classes - 1} ({num_classes} classes): "
            "number the classes from 0, or correct num_classes of the source"
        )


class Source(ABC):
    """A data set. Attributes describe it without reading files; `check` verifies that it exists; `splits` reads it.

    A constructor only stores its arguments and does not access files.
    """

    num_classes: int | None  # None: unlabeled, the number of classes comes from the teacher
    train_labels: bool = True  # whether train has labels
    labels: bool = True  # whether val and test have labels
    names: Sequence[str] | None = None  # class names in label order, if any
    revision: str | None = None  # of a published data set, such as a commit
    channels: int = 3
    flip: bool = True  # whether a mirrored image keeps its label
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def check(self) -> None:  # noqa: B027 - most sources have nothing to look for
        """Raise ValueError, with the layout that is expected and how to get the data, if it is not there. Fast."""

    def remarks(self) -> Sequence[str]:
        """Return sentences for the log about files that are not used, or not as the names of their folders suggest."""
        return ()

    @abstractmethod
    def splits(self) -> Mapping[SplitName, Images]:
        """The data set's own splits. Those it lacks are carved from others by `kdx.data.splits`."""
