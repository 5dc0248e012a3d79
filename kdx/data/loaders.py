"""Two loaders with one interface: iterate RenderedBatch in the sampler's order.

ResidentLoader decodes a split once, keeps it on the device and renders there. StreamedLoader decodes and renders in worker
processes, which send uint8 images.
"""

from __future__ import annotations

import math
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
from kdx.data.source import BadImageError, Images, checked_image, image_name
from kdx.ranges import ShapeError
from kdx.types import Draw, Examples, RenderedBatch

Position = Callable[[], tuple[int, int]]  # the epoch, and the first batch in it that is still to come
Look = Callable[[Examples], RenderedBatch]  # how an observer looks at decoded examples
OnBadImage = Literal["raise", "skip"]
SAMPLE = 64  # images that tell whether a split can be resident
Ticket = tuple[int, int, NDArray[np.int64]]  # epoch, number of the batch, indices


def at_start() -> tuple[int, int]:
    """Return the position of a loader that always starts with the first batch of epoch 0."""
    return 0, 0


class TooLargeError(ValueError):
    """Images that do not fit into the memory that is meant for them."""


def decode(
    images: Images, index: NDArray[np.int64], on_bad_image: OnBadImage, budget: float = math.inf
) -> tuple[list[torch.Tensor], dict[int, str]]:
    """Return the images that can be decoded, uint8 [C,H,W] each, and the errors of the others: index -> message.

    Raises:
        BadImageError: an image cannot be decoded, and `on_bad_image` is "raise".
        TooLargeError: all images on one canvas, as high and as wide as the largest, would have more than `budget` bytes.
        ShapeError: an image is not uint8 [C,H,W], or has another number of channels than those before.
    """
    decoded: list[torch.Tensor] = []
    bad: dict[int, str] = {}
    height = width = 0
    for i in index.tolist():
        try:
            decoded.append(torch.from_numpy(checked_image(images[i], images, i)))
            height, width = max(height, decoded[-1].shape[1]), max(width, decoded[-1].shape[2])
            if len(index) * len(decoded[0]) * height * width > budget:
                raise TooLargeError(f"{image_name(images, i)} makes the canvas {height} x {width} px")
            if len(decoded[-1]) != len(decoded[0]):
                raise ShapeError(
                    f"{image_name(images, i)} has {len(decoded[-1])} channels; expected {len(decoded[0])} as before: "
                    "convert all images to gray or all to RGB"
                )
        except BadImageError as error:
            if on_bad_image == "raise":
                raise
            bad[i] = str(error)
    return decoded, bad


def without(draw: Draw, halo: int, bad: dict[int, str]) -> Draw:
    """Return the draw without bad examples. A bad halo is replaced by the first good example, which is then not mixed."""
    rows = np.flatnonzero(~np.isin(draw.index, list(bad))) if bad else np.arange(len(draw.index))
    inner = rows[rows >= halo]
    if not len(inner):
        raise BadImageError(f"no image of batch {draw.batch} can be decoded: {next(iter(bad.values()))}")
    if halo and not (rows < halo).any():
        rows = np.concatenate([inner[:1], inner])
    return replace(draw, index=draw.index[rows])


def alone(index: NDArray[np.int64], halo: int, bad: dict[int, str]) -> NDArray[np.bool_] | None:
    """Return which good examples [B], without the halo, have a bad predecessor, their partner in mixing; None if none has.

    They are not mixed. So an example's partner does not depend on the rank that has it.
    """
    if not halo or not bad:
        return None
    is_bad = np.isin(index, list(bad))
    lonely: NDArray[np.bool_] = is_bad[:-1][~is_bad[1:]]
    return lonely if lonely.any() else None


class Loader(ABC):
    """Iterates one epoch of rendered batches, from `position()` on. `skipped`: index of each image left out -> error."""

    def __init__(self, images: Images, order: Sampler, look: Look, position: Position, on_bad_image: OnBadImage) -> None:
        self.images, self.order, self.look, self.position = images, order, look, position
        self.on_bad_image = on_bad_image
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.order)

    def state_dict(self) -> dict[str, int]:
        """Return an empty state: `position` and the seed suffice. Lightning resumes only loaders that have a state."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:  # noqa: B027 - most loaders have no state
        """Ignore `state`, which is empty."""

    def __iter__(self) -> Iterator[RenderedBatch]:
        epoch, first = self.position()
        for rendered in self._rendered((epoch, number, index) for number, index in self.order.batches(epoch, first)):
            self.skipped |= rendered.skipped
            yield rendered

    @abstractmethod
    def _rendered(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]: ...


class Resident:
    """A split decoded once, on `device`: one canvas uint8 [N,C,H,W], sizes [N,2], labels [N]; bad images are 0.

    The canvas is as high and as wide as the largest image. Raises TooLargeError if it would have more than `budget` bytes; a
    sample from all over the split is decoded first, so that this is mostly known at once.
    """

    def __init__(
        self,
        images: Images,
        on_bad_image: OnBadImage = "raise",
        device: torch.device | str = "cpu",
        budget: float = math.inf,
    ) -> None:
        index = np.arange(len(images))
        if budget < math.inf and len(index):
            sample = index[:: -(-len(index) // SAMPLE)]
            decode(images, sample, "skip", budget * len(sample) / len(index))
        decoded, self.skipped = decode(images, index, on_bad_image, budget)
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
    """Gathers batches from a split on the device, which several loaders may share as `held`."""

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

    def _rendered(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        held = self.held
        for epoch, number, index in tickets:
            draw = without(Draw(self.order.seed, epoch, number, index), self.order.halo, held.skipped)
            rows = torch.from_numpy(draw.index).to(held.pixels.device, non_blocking=True)
            label = None if held.labels is None else held.labels[rows]
            rendered = self.look(Examples(draw, held.pixels[rows], held.sizes[draw.index], label, self.order.halo))
            yield replace(rendered, alone=alone(index, self.order.halo, held.skipped))


class StreamedLoader(Loader):
    """Workers decode and render while the device computes; they are kept over epochs and send uint8 images."""

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
            collate_fn=_as_is,  # type: ignore[arg-type]  # gets a whole batch, not a list of examples
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
        # Keeps the DataLoader out of the garbage when this loader dies in a cycle, as Lightning's do: collected with its
        # queues, it would wait 5 s for each worker. So nothing in it may refer back to this loader.
        weakref.finalize(self, lambda held: None, self._loader)

    def _rendered(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        self._tickets.coming = tickets
        try:
            yield from self._loader
        except (BadImageError, ShapeError) as error:
            raise type(error)(_message(error)) from None


class _Tickets:
    """The batch sampler of a DataLoader that outlives epochs: the batches still to come in the current one."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.coming: Iterator[Ticket] = iter(())

    def __iter__(self) -> Iterator[list[Ticket]]:
        return ([ticket] for ticket in self.coming)  # DataLoader asks for two iterators, and uses the second

    def __len__(self) -> int:
        return self.length


class _Work(Dataset[RenderedBatch]):
    """Decodes and renders a whole batch in one call of a worker."""

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
        rendered = self.look(Examples(kept, chosen, sizes, label, self.order.halo))
        return replace(rendered, skipped=bad, alone=alone(index, self.order.halo, bad))


def _as_is(rendered: RenderedBatch) -> RenderedBatch:
    return rendered


def _message(error: Exception) -> str:
    """The error's own message, without the traceback that DataLoader puts before one from a worker."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip() if str(error).startswith("Caught ") else str(error)
