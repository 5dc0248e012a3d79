"""Two loaders, one contract: iterate Examples. Resident keeps a whole split on the device; streamed has workers decode."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdx.data.sampler import Sampler
from kdx.data.source import Images
from kdx.types import Draw, Examples

Position = Callable[[], tuple[int, int]]  # the epoch, and the first batch in it that is still to come
Decoded = tuple[Tensor, NDArray[np.int64]]


def at_start() -> tuple[int, int]:
    """The position of a loader that always begins at the beginning."""
    return 0, 0


def decode(images: Images, index: NDArray[np.int64]) -> Decoded:
    """The named images as one uint8 canvas [B,C,H,W], each in its top left corner, and their sizes [B,2]."""
    decoded = [images[int(i)] for i in index]
    sizes = np.array([image.shape[1:] for image in decoded], np.int64).reshape(-1, 2)
    canvas = np.zeros((len(decoded), decoded[0].shape[0], *sizes.max(0)), np.uint8)
    for row, image in zip(canvas, decoded, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return torch.from_numpy(canvas), sizes


class Loader:
    """Iterates one epoch of Examples, in the given order, from `position()` on."""

    def __init__(self, images: Images, order: Sampler, position: Position = at_start) -> None:
        self.images, self.order, self.position = images, order, position
        self.labels = None if images.labels is None else torch.from_numpy(images.labels)

    def __len__(self) -> int:
        return len(self.order)

    def state_dict(self) -> dict[str, int]:
        """Nothing: `position` and the order's seed say all. Its presence tells Lightning that the loader can be resumed."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load."""

    def __iter__(self) -> Iterator[Examples]:
        epoch, first = self.position()
        planned = list(self.order.batches(epoch, first))
        for (number, index), (pixels, sizes) in zip(planned, self._decoded(planned), strict=True):
            draw = Draw(self.order.seed, epoch, number, index)
            label = None if self.labels is None else self.labels[torch.from_numpy(index).to(self.labels.device)]
            yield Examples(draw, pixels, sizes, label, self.order.halo)

    def _decoded(self, planned: list[tuple[int, NDArray[np.int64]]]) -> Iterator[Decoded]:
        raise NotImplementedError


class ResidentLoader(Loader):
    """The whole split, decoded once, lives on `device`; a batch is a gather."""

    def __init__(self, images: Images, order: Sampler, position: Position, device: torch.device) -> None:
        super().__init__(images, order, position)
        pixels, self.sizes = decode(images, np.arange(len(images)))
        self.pixels = pixels.to(device)
        self.labels = None if self.labels is None else self.labels.to(device)

    def _decoded(self, planned: list[tuple[int, NDArray[np.int64]]]) -> Iterator[Decoded]:
        for _, index in planned:
            yield self.pixels[torch.from_numpy(index).to(self.pixels.device)], self.sizes[index]


class _Decoder(Dataset[Decoded]):
    """Decodes a whole batch in one call of a worker."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitems__(self, index: list[int]) -> Decoded:
        return decode(self.images, np.array(index))


class StreamedLoader(Loader):
    """Workers decode while the device computes. They are kept over epochs and ship uint8 pixels."""

    def __init__(self, images: Images, order: Sampler, position: Position, num_workers: int) -> None:
        super().__init__(images, order, position)
        self._plan = _Plan()
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if num_workers else {}
        self._loader = DataLoader(
            _Decoder(images),
            batch_sampler=self._plan,  # type: ignore[arg-type]
            collate_fn=_as_is,  # type: ignore[arg-type]
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
        # Keeps the DataLoader out of the garbage when this loader dies in a cycle, as Lightning's do: collected with its
        # queues, it would wait 5 s for each worker. So nothing in it may refer back to this loader.
        weakref.finalize(self, lambda held: None, self._loader)

    def _decoded(self, planned: list[tuple[int, NDArray[np.int64]]]) -> Iterator[Decoded]:
        self._plan.batches = [index.tolist() for _, index in planned]
        yield from self._loader


class _Plan:
    """The batch sampler of a DataLoader that outlives epochs: what is to come in the current one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _as_is(decoded: Decoded) -> Decoded:
    return decoded
