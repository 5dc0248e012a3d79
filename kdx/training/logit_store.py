"""Batches of logits of a whole split, in memory or, if they are large, in a temporary file."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Sequence
from typing import IO, cast, overload

import numpy as np
import torch
from torch import Tensor

IN_MEMORY = 256 * 2**20  # bytes of a store that stay on the device; 50,000 images of ImageNet's 1,000 classes are 200 MB


class MappedLogits(Sequence[Tensor]):
    """Batches of logits, each mapped by a function when it is read."""

    def __init__(self, batches: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> None:
        self.batches, self.function = batches, function

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...
    @overload
    def __getitem__(self, number: slice) -> list[Tensor]: ...
    def __getitem__(self, number: int | slice) -> Tensor | list[Tensor]:
        if isinstance(number, slice):
            return [self.function(batch) for batch in self.batches[number]]
        return self.function(self.batches[number])


class LogitStore(Sequence[Tensor]):
    """Batches of float32 logits [B,K], in the order in which they were appended, on the device that they came from.

    Those beyond `IN_MEMORY` bytes are written to a temporary file without a name, in TMPDIR, and read again at each access.
    """

    def __init__(self) -> None:
        self._batches: list[Tensor | tuple[int, torch.Size, torch.device]] = []  # in memory, or its place in the file
        self._file: IO[bytes] | None = None
        self._bytes = 0

    def append(self, logits: Tensor) -> None:
        """Add a batch. OSError if the disk is full."""
        logits = logits.float()
        self._bytes += logits.nbytes
        if self._bytes <= IN_MEMORY:
            self._batches.append(logits)
            return
        if self._file is None:
            self._file = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 - it lives as long as the store
            weakref.finalize(self, self._file.close)
        start = self._file.seek(0, 2)
        try:
            self._file.write(logits.cpu().contiguous().numpy().data)
            self._file.flush()
        except OSError as error:
            gigabytes, folder = self._bytes / 1e9, tempfile.gettempdir()
            raise OSError(
                f"Cannot store {gigabytes:.1f} GB of logits in {folder} ({error.strerror}): set TMPDIR to a folder with space"
            ) from None
        self._batches.append((start, logits.shape, logits.device))

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...
    @overload
    def __getitem__(self, number: slice) -> list[Tensor]: ...
    def __getitem__(self, number: int | slice) -> Tensor | list[Tensor]:
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        batch = self._batches[number]
        if isinstance(batch, Tensor):
            return batch
        start, shape, device = batch
        values = np.empty(tuple(shape), np.float32)
        assert self._file is not None
        self._file.seek(start)
        values.data.cast("B")[:] = self._file.read(values.nbytes)
        return torch.from_numpy(values).to(device)
