"""Sampler: the examples of each batch on each rank, as a pure function of seed, epoch and batch number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdx.random import permutation

RUNS = 16  # of consecutive examples in a buffer


@dataclass(frozen=True)
class Sampler:
    """Batches of indices into a split of `size` examples, for one of `world` ranks that share each global batch.

    Training shuffles and drops the last, incomplete batch; then every rank has the same number of equal batches. Evaluation
    sees every example exactly once: ranks get consecutive stretches, which may differ in length by one. `halo` = 1 puts in
    front of a rank's share the example that precedes it in the global batch (cyclically): its partner in mixing. With a
    `buffer`, training shuffles only within so many examples, which come from RUNS runs of consecutive ones.
    """

    size: int
    batch_size: int  # global: over all ranks
    seed: int = 0
    train: bool = False
    halo: int = 0
    rank: int = 0
    world: int = 1
    buffer: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise ValueError(
                f"data.batch_size={self.batch_size} is the batch over all devices and must divide by their number, {self.world}"
            )
        if self.train and self.size < self.batch_size:
            raise ValueError(
                f"data.batch_size={self.batch_size} is more than the {self.size} training images: "
                f"set data.batch_size to at most {self.size}"
            )

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        if self.train:
            return self.size // self.batch_size
        return -(-len(self._stretch()) // (self.batch_size // self.world))

    def _stretch(self) -> NDArray[np.int64]:
        return np.arange(self.size * self.rank // self.world, self.size * (self.rank + 1) // self.world)

    def batches(self, epoch: int, first: int = 0) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(number of the batch, indices [halo + B]) from batch `first` of the epoch on."""
        local = self.batch_size // self.world
        if not self.train:
            stretch = self._stretch()
            for number in range(first, len(self)):
                yield number, stretch[number * local : (number + 1) * local]
            return
        order = self._order(epoch)
        place = np.arange(self.rank * local - self.halo, (self.rank + 1) * local) % self.batch_size
        for number in range(first, len(self)):
            yield number, order[number * self.batch_size + place]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the examples in the order of this epoch, [size]."""
        order = permutation(self.seed, "order", epoch, self.size)
        if self.buffer is None or self.buffer >= self.size:
            return order
        length = max(self.buffer // RUNS, 1)
        starts = permutation(self.seed, "runs", epoch, -(-self.size // length)) * length
        runs = (starts[:, None] + np.arange(length)).ravel()
        windows = np.arange(self.size) // self.buffer
        shuffled: NDArray[np.int64] = runs[runs < self.size][np.lexsort((order, windows))]
        return shuffled
