"""Encoded images in a few large files, read by their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdx.data.decoding import decode_bytes
from kdx.data.source import BadImageError, Images


@dataclass(frozen=True)
class Places:
    """Where the images of a file are: `offsets` and `sizes` in bytes, and `labels`, all int64 [N]."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]


class PackedImages(Images):
    """The images of one split in several files, decoded at access.

    Args:
        paths: The files.
        found: The places in each file.
        channels: Of the decoded images, 1 or 3.
        remedy: For a file that cannot be read.
    """

    labels: NDArray[np.int64]

    def __init__(self, paths: Sequence[Path], found: Sequence[Places], channels: int, remedy: str) -> None:
        self.files, self._channels, self._remedy = [str(path) for path in paths], channels, remedy
        counts = [len(one.labels) for one in found]
        self.file = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.offsets = np.concatenate([one.offsets for one in found])
        self.sizes = np.concatenate([one.sizes for one in found]).astype(np.uint32)
        self.labels = np.concatenate([one.labels for one in found])

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return decode_bytes(self.encoded(index), self._name(index), self._channels, self.decoding)

    def encoded(self, index: int) -> bytes:
        """Return the content of an image file. BadImageError if it cannot be read."""
        try:
            with open(self.files[self.file[index]], "rb") as file:
                file.seek(self.offsets[index])
                return file.read(int(self.sizes[index]))
        except OSError as error:
            raise BadImageError(f"{self._name(index)} cannot be read ({error.strerror}): {self._remedy}") from error

    def _name(self, index: int) -> str:
        return f"image {index}, at byte {self.offsets[index]} of {self.files[self.file[index]]},"
