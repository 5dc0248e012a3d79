"""Two loaders, one contract: iterate RenderedBatch, in the sampler's order.

Resident keeps a whole split, decoded once, on the device, and looks at it there. Streamed has workers decode, look, and ship
uint8 images.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from kdx.data.sampler import Sampler
from kdx.data.source import BadImageError, Images
from kdx.types import Draw, Examples, RenderedBatch

Position = Callable[[], tuple[int, int]]  # the epoch, and the first batch in it that is still to come
Look = Callable[[Examples], RenderedBatch]  # how an observer looks at decoded examples
OnBadImage = Literal["raise", "skip"]
Ticket = tuple[int, int, NDArray[np.int64]]  # epoch, number of the batch, indices


def at_start() -> tuple[int, int]:
    """The position of a loader that always begins at the beginning."""
    return 0, 0


def decode(images: Images, index: NDArray[np.int64], on_bad_image: OnBadImage) -> tuple[list[torch.Tensor], dict[int, str]]:
    """The named images that can be decoded, uint8 [C,H,W] each, and why the others cannot: index -> message."""
    decoded, bad = [], {}
    for i in index.tolist():
        try:
            decoded.append(torch.from_numpy(images[i]))
        except BadImageError as error:
            if on_bad_image == "raise":
                raise
            bad[i] = str(error)
    return decoded, bad


def without(draw: Draw, halo: int, bad: dict[int, str]) -> Draw:
    """The draw without bad examples. If the halo is bad, the first good example stands in for it."""
    rows = np.flatnonzero(~np.isin(draw.index, list(bad))) if bad else np.arange(len(draw.index))
    own = rows[rows >= halo]
    if not len(own):
        raise BadImageError(f"no image of batch {draw.batch} can be decoded: {next(iter(bad.values()))}")
    if halo and not (rows < halo).any():
        rows = np.concatenate([own[:1], own])
    return replace(draw, index=draw.index[rows])


class Loader(ABC):
    """Iterates one epoch of what the observer sees, from `position()` on. `skipped` collects images left out, and why."""

    def __init__(self, images: Images, order: Sampler, look: Look, position: Position, on_bad_image: OnBadImage) -> None:
        self.images, self.order, self.look, self.position = images, order, look, position
        self.on_bad_image = on_bad_image
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.order)

    def state_dict(self) -> dict[str, int]:
        """Nothing: `position` and the order's seed say all. Its presence tells Lightning that the loader can be resumed."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:  # noqa: B027 - most loaders have no state
        """Nothing to load."""

    def __iter__(self) -> Iterator[RenderedBatch]:
        epoch, first = self.position()
        for seen in self._seen((epoch, number, index) for number, index in self.order.batches(epoch, first)):
            self.skipped |= seen.skipped
            yield seen

    @abstractmethod
    def _seen(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]: ...


class Resident:
    """A whole split, decoded once, on `device`: one canvas uint8 [N,C,H,W], sizes [N,2], labels [N]; what is bad is 0."""

    def __init__(self, images: Images, on_bad_image: OnBadImage = "raise", device: torch.device | str = "cpu") -> None:
        index = np.arange(len(images))
        decoded, self.skipped = decode(images, index, on_bad_image)
        good = np.setdiff1d(index, list(self.skipped))
        if not decoded:
            raise BadImageError(f"none of {len(images)} images can be decoded: {next(iter(self.skipped.values()), 'empty')}")
        self.sizes = np.zeros((len(images), 2), np.int64)
        self.sizes[good] = [image.shape[1:] for image in decoded]
        canvas = torch.zeros(len(images), len(decoded[0]), *self.sizes.max(0).tolist(), dtype=torch.uint8)
        for i, image in zip(good, decoded, strict=True):
            canvas[i, :, : image.shape[1], : image.shape[2]] = image
        self.pixels = canvas.to(device)
        self.labels = None if images.labels is None else torch.from_numpy(images.labels).to(device)


class ResidentLoader(Loader):
    """A batch is a gather from a split that lives on the device; several loaders may share what is `held` there."""

    def __init__(
        self,
        images: Images,
        order: Sampler,
        look: Look,
        position: Position = at_start,
        on_bad_image: OnBadImage = "raise",
        device: torch.device | str = "cpu",
        held: Resident | None = None,
    ) -> None:
        super().__init__(images, order, look, position, on_bad_image)
        self.held = held or Resident(images, on_bad_image, device)
        self.skipped = dict(self.held.skipped)

    def _seen(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        held = self.held
        for epoch, number, index in tickets:
            draw = without(Draw(self.order.seed, epoch, number, index), self.order.halo, held.skipped)
            rows = torch.from_numpy(draw.index).to(held.pixels.device, non_blocking=True)
            label = None if held.labels is None else held.labels[rows]
            yield self.look(Examples(draw, held.pixels[rows], held.sizes[draw.index], label, self.order.halo))


class StreamedLoader(Loader):
    """Workers decode and look while the device computes. They are kept over epochs and ship uint8 images."""

    def __init__(
        self,
        images: Images,
        order: Sampler,
        look: Look,
        position: Position = at_start,
        on_bad_image: OnBadImage = "raise",
        num_workers: int = 0,
    ) -> None:
        super().__init__(images, order, look, position, on_bad_image)
        self._tickets = _Tickets(len(order))
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if num_workers else {}
        self._loader = DataLoader(
            _Work(images, order, look, on_bad_image),
            batch_sampler=self._tickets,
            collate_fn=_as_is,  # type: ignore[arg-type]  # what is collated already is no list
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
        # Keeps the DataLoader out of the garbage when this loader dies in a cycle, as Lightning's do: collected with its
        # queues, it would wait 5 s for each worker. So nothing in it may refer back to this loader.
        weakref.finalize(self, lambda held: None, self._loader)

    def _seen(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        self._tickets.coming = tickets
        yield from self._loader


class _Tickets:
    """The batch sampler of a DataLoader that outlives epochs: what is to come in the current one."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.coming: Iterator[Ticket] = iter(())

    def __iter__(self) -> Iterator[list[Ticket]]:
        return ([ticket] for ticket in self.coming)  # DataLoader asks for two iterators, and uses the second

    def __len__(self) -> int:
        return self.length


class _Work(Dataset[RenderedBatch]):
    """Does a whole batch in one call of a worker."""

    def __init__(self, images: Images, order: Sampler, look: Look, on_bad_image: OnBadImage) -> None:
        self.images, self.order, self.look, self.on_bad_image = images, order, look, on_bad_image

    def __getitems__(self, tickets: list[Ticket]) -> RenderedBatch:
        ((epoch, number, index),) = tickets
        decoded, bad = decode(self.images, index, self.on_bad_image)
        draw = Draw(self.order.seed, epoch, number, index)
        kept = without(draw, self.order.halo, bad)
        place = {i: k for k, i in enumerate(i for i in index.tolist() if i not in bad)}
        chosen = [decoded[place[i]] for i in kept.index.tolist()]
        sizes = np.array([image.shape[1:] for image in chosen], np.int64)
        label = None if self.images.labels is None else torch.from_numpy(self.images.labels[kept.index])
        return replace(self.look(Examples(kept, chosen, sizes, label, self.order.halo)), skipped=bad)


def _as_is(seen: RenderedBatch) -> RenderedBatch:
    return seen
