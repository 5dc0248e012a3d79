"""Detection of images that are in two splits, by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdx.data.cache import key
from kdx.data.decoding import ImageFiles
from kdx.data.source import ArrayImages, Images
from kdx.run.files import remembered_json

MOST = 200_000  # images of both splits that are searched unless it is asked for
PROBE = 4096  # bytes

Reader = ImageFiles | ArrayImages
Item = tuple[Reader, int]
Look = Callable[[str], Hashable]


def stored_duplicates(train: Images, test: Images, folder: Path) -> int | None:
    """Return the same as `count_duplicates`; of files, it is stored in `folder` by names, sizes and modification times."""
    count = partial(count_duplicates, train, test)
    if not all(isinstance(reader, ImageFiles) for images in (train, test) for reader, _ in _readers(images)):
        return count()
    file = folder / f"duplicates-{key(train, 'train')}-{key(test, 'test')}.json"
    return remembered_json(file, count, lambda stored: stored, lambda found: found)


def count_duplicates(train: Images, test: Images) -> int | None:
    """Return how many images of `test` are also in `train`, byte by byte; None if images are neither files nor in memory.

    Of the files with a size that occurs in both splits, 4 KiB are read; then the whole of those that are still equal.
    """
    if not all(isinstance(reader, Reader) for images in (train, test) for reader, _ in _readers(images)):
        return None
    left, right = _items(train), _items(test)
    for look in (os.path.getsize, _middle, _whole):
        left, right = _shared(left, right, look)
    return len(right)


def _readers(images: Images) -> list[tuple[Images, NDArray[np.int64]]]:
    return images.origins(np.arange(len(images)))


def _items(images: Images) -> Sequence[Item]:
    return [(reader, i) for reader, index in _readers(images) if isinstance(reader, Reader) for i in index.tolist()]


def _shared(left: Sequence[Item], right: Sequence[Item], look: Look) -> tuple[Sequence[Item], Sequence[Item]]:
    """Return the items of each side that look like one of the other side."""
    of_right = [_seen(look, *item) for item in right]
    there, common, kept = set(of_right), set(), []
    for item in left:
        if (one := _seen(look, *item)) in there:
            common.add(one)
            kept.append(item)
    return kept, [item for item, one in zip(right, of_right, strict=True) if one in common]


def _seen(look: Look, reader: Reader, index: int) -> Hashable:
    """What a look at an image tells. It is like no other if its file cannot be read."""
    if isinstance(reader, ArrayImages):
        image = reader.images[index]
        return image.shape, hashlib.sha256(image.tobytes()).digest()
    try:
        return look(reader.path(index))
    except OSError:
        return object()


def _middle(path: str) -> Hashable:
    """The size and a part from the middle of a file, which differs where the heads of one camera's pictures are equal."""
    with open(path, "rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - PROBE) // 2)
        return size, hashlib.sha256(file.read(PROBE)).digest()


def _whole(path: str) -> Hashable:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
