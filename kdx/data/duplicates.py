"""Detection of images that are in two splits, by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from kdx.data.source import ArrayImages, Images, Subset


def count_duplicates(train: Images, test: Images) -> int:
    """Return how many images of `test` are also in `train`, byte by byte; 0 if images are neither files nor in memory.

    Only files with a size that occurs in both splits are read.
    """
    left, right = _contents(train), _contents(test)
    if left is None or right is None:
        return 0
    sizes = {size for size, _ in left} & {size for size, _ in right}
    digests = {_digest(content) for size, content in left if size in sizes}
    return sum(_digest(content) in digests for size, content in right if size in sizes)


def _contents(images: Images) -> list[tuple[int, Path | bytes]] | None:
    """(size in bytes, file or pixels) of every image."""
    if isinstance(images, Subset):
        whole = _contents(images.images)
        return None if whole is None else [whole[i] for i in images.index.tolist()]
    if isinstance(images, ArrayImages):
        return [(image.nbytes, image.tobytes()) for image in images.images]
    paths = getattr(images, "paths", None)
    if paths is None:
        return None
    files = [Path(os.fsdecode(path)) for path in paths]
    return [(path.stat().st_size if path.is_file() else -1, path) for path in files]


def _digest(content: Path | bytes) -> bytes:
    data = content if isinstance(content, bytes) else content.read_bytes() if content.is_file() else str(content).encode()
    return hashlib.sha256(data).digest()
