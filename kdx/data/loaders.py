"""Two loaders with one interface: iterate RenderedBatch in the sampler's order.

ResidentLoader decodes a split once, keeps it on the device and renders there. StreamedLoader decodes and renders in worker
processes, which send uint8 images.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from kdx.data.resident import OnBadImage, Resident, decode
from kdx.data.sampler import Sampler
from kdx.data.source import BadImageError, Images
from kdx.ranges import ShapeError
from kdx.types import Draw, Examples, RenderedBatch

Position = Callable[[], tuple[int, int]]  # the epoch, and the first batch in it that is still to come
Look = Callable[[Examples], RenderedBatch]  # how an observer looks at decoded examples
Ticket = tuple[int, int, NDArray[np.int64]]  # epoch, number of the batch, indices

MOST_WORKERS = 16  # that auto chooses
KEPT = 128 << 20  # bytes of rendered views of val or test


def at_start() -> tuple[int, int]:
    """Return the position of a loader that always starts with the first batch of epoch 0."""
    return 0, 0


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
        for rendered in self.batches(*self.position()):
            self.skipped |= rendered.skipped
            yield rendered

    def chosen(self, epoch: int, index: NDArray[np.int64]) -> RenderedBatch:
        """Return the images `index` [B] as one batch of an epoch."""
        (rendered,) = self._rendered(iter([(epoch, 0, index)]))
        return rendered

    def batches(self, epoch: int, first: int) -> Iterator[RenderedBatch]:
        """Return the rendered batches of an epoch, from batch `first` on."""
        return self._rendered((epoch, number, index) for number, index in self.order.batches(epoch, first))

    @abstractmethod
    def _rendered(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]: ...


class ResidentLoader(Loader):
    """Gathers batches from a split on the device, which several loaders may share as `held`; `at_once` of them in one call.

    Without training, every pass shows the same views: rendered once, they stay on the device if they have at most KEPT bytes.
    """

    def __init__(
        self,
        images: Images,
        order: Sampler,
        look: Look,
        position: Position = at_start,
        on_bad_image: OnBadImage = "raise",
        device: torch.device | str = "cpu",
        held: Resident | None = None,
        at_once: int = 1,
    ) -> None:
        super().__init__(images, order, look, position, on_bad_image)
        self.at_once = at_once
        self.held = held or Resident(images, on_bad_image, device)
        self.skipped = dict(self.held.skipped)
        self._kept: list[RenderedBatch] = []

    def batches(self, epoch: int, first: int) -> Iterator[RenderedBatch]:
        # From the first batch of its group on, so that a run that goes on has the same pixels to the last bit.
        before = first % self.at_once
        return islice(super().batches(epoch, first - before), before, None)

    def _rendered(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        if self.order.train:
            return self._gathered(tickets)
        return iter(self._kept) if len(self._kept) == len(self) else self._keeping(tickets)

    def _keeping(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        self._kept, room = [], KEPT
        for rendered in self._gathered(tickets):
            room -= rendered.bytes
            if room >= 0:
                self._kept.append(rendered)
            else:
                self._kept.clear()
            yield rendered

    def _gathered(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        held, halo = self.held, self.order.halo
        while block := list(islice(tickets, self.at_once)):
            draws = [without(Draw(self.order.seed, *ticket), halo, held.skipped) for ticket in block]
            draw = replace(draws[0], index=np.concatenate([one.index for one in draws]))
            rows = torch.from_numpy(draw.index).to(held.pixels.device, non_blocking=True)
            label = None if held.labels is None else held.labels[rows]
            rendered = self.look(Examples(draw, held.pixels[rows], held.sizes[draw.index], label, halo))
            for (_, _, index), part in zip(block, rendered.parts(draws), strict=True):
                yield replace(part, alone=alone(index, halo, held.skipped))


def workers(asked: int | Literal["auto"], gpus: int) -> int:
    """Return the number of workers that decode for one training process.

    "auto" is an equal share of this machine's cores for each of its `gpus` that train, at most 16; and 0 if none does, because
    the cores are busy then.
    """
    if asked != "auto":
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // gpus, 1), MOST_WORKERS) if gpus else 0


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
