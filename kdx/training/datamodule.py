"""Lightning data module: loaders of the splits, with the rendering of each network's view."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from kdx.data.loaders import Loader, Position, ResidentLoader, StreamedLoader, at_start
from kdx.data.resident import LoaderKind, OnBadImage, Resident, resident
from kdx.data.sampler import Sampler
from kdx.data.source import Images, SplitName, check_labels
from kdx.data.splits import fingerprint
from kdx.training.sharing import About, Sharing
from kdx.types import Batch, RenderedBatch
from kdx.views.observer import Observer


class DataModule(pl.LightningDataModule):
    """Loaders for Lightning, and the observers that define how each split is rendered.

    `batch_size` is the batch over all devices, and `eval_batch_size` that of passes without training. `loader="auto"` keeps a
    split resident if its decoded pixels, on one canvas of the size of the largest image, have at most `budget` bytes.
    `shuffle_buffer` is that of the `Sampler`. `about` gives what the training batches depend on, for runs that share them by
    `sharing`.
    """

    def __init__(
        self,
        splits: Mapping[SplitName, Images],
        observers: Mapping[str, Observer],
        *,
        batch_size: int,
        seed: int,
        loader: LoaderKind = "auto",
        num_workers: int = 0,
        budget: int = 2 << 30,
        on_bad_image: OnBadImage = "raise",
        shuffle_buffer: int | None = None,
        eval_batch_size: int | None = None,
        sharing: Sharing | None = None,
        about: About = dict,
    ) -> None:
        super().__init__()
        self.shuffle_buffer = shuffle_buffer
        self.sharing, self.about = sharing or Sharing(), about
        for name, images in splits.items():
            check_labels(images, observers[name].num_classes)
        self.splits, self.observers = splits, observers
        self.batch_size, self.seed = batch_size, seed
        self.eval_batch_size = eval_batch_size or batch_size
        self.kind, self.num_workers, self.budget, self.on_bad_image = loader, num_workers, budget, on_bad_image
        self.loaders: list[tuple[SplitName, Loader]] = []
        self._held: dict[SplitName, Resident | None] = {}

    @property
    def world(self) -> int:
        """The number of ranks."""
        assert self.trainer is not None
        return self.trainer.world_size

    def held(self, split: SplitName) -> Resident | None:
        """Return this split, decoded once and kept on the device; None if it is streamed."""
        if split not in self._held:
            assert self.trainer is not None
            device = self.trainer.strategy.root_device
            make = functools.partial(resident, self.splits[split], self.kind, self.budget, self.on_bad_image, device)
            self._held[split] = self.sharing.once(f"{split} on {device}", functools.partial(self._pixels, split), make)
        return self._held[split]

    def _pixels(self, split: SplitName) -> dict[str, Any]:
        return {"pixels": fingerprint({split: self.splits[split]}), "loader": [self.kind, self.budget, self.on_bad_image]}

    def loader(
        self,
        split: SplitName,
        observer: Observer,
        position: Position = at_start,
        *,
        train: bool = False,
        num_workers: int | None = None,
    ) -> Loader:
        """Return a loader of a split, rendered by `observer`: shuffled for training, else every example once."""
        num_workers = self.num_workers if num_workers is None else num_workers
        assert self.trainer is not None
        images = self.splits[split]

        def place() -> tuple[int, int]:
            epoch, batch = position()
            return observer.order(self.seed, epoch)[1], batch

        order = Sampler(
            len(images),
            self.batch_size if train else self.eval_batch_size,
            observer.order(self.seed, 0)[0],
            train=train,
            halo=observer.halo if train else 0,
            rank=self.trainer.global_rank,
            world=self.world,
            buffer=self.shuffle_buffer,
        )
        held = self.held(split)
        loader: Loader = (
            StreamedLoader(images, order, observer.look, place, self.on_bad_image, num_workers)
            if held is None
            else ResidentLoader(
                *(images, order, observer.look, place, self.on_bad_image),
                held=held,
                at_once=observer.batches_at_once(order.batch_size // self.world * held.pixels.shape[1]),
            )
        )
        self.loaders.append((split, loader))
        return loader

    def chooser(self, split: SplitName, observer: Observer) -> Callable[[int, NDArray[np.int64]], Batch]:
        """Return a function that gives the images of an index [B], with their views of an epoch of training, as one batch."""
        loader = self.loader(split, observer, train=True, num_workers=0)

        def choose(epoch: int, index: NDArray[np.int64]) -> Batch:
            assert self.trainer is not None
            return observer.finish(loader.chosen(epoch, index).to(self.trainer.strategy.root_device))

        return choose

    def batches(self, split: SplitName, observer: Observer, device: torch.device) -> Iterator[Batch]:
        """Every example of a split once, on `device`, outside of Lightning's loops."""
        for rendered in self.loader(split, observer):
            yield observer.finish(rendered.to(device))

    def train_dataloader(self) -> Loader:
        loader = self.loader("train", self.observers["train"], self._position, train=True)
        return self.sharing.batches(self.about, loader, self._position)

    def val_dataloader(self) -> Loader:
        return self.loader("val", self.observers["val"])

    def test_dataloader(self) -> Loader:
        return self.loader("test", self.observers["test"])

    def _position(self) -> tuple[int, int]:
        """Return (epoch, batch) of training. Read at the first batch of a pass, so a resumed run continues at that batch."""
        assert self.trainer is not None
        return self.trainer.current_epoch, batches_begun(self.trainer)

    def transfer_batch_to_device(self, batch: RenderedBatch, device: torch.device, dataloader_idx: int) -> RenderedBatch:
        return batch.to(device)

    def on_after_batch_transfer(self, batch: RenderedBatch, dataloader_idx: int) -> Batch:
        assert self.trainer is not None
        if self.trainer.testing:
            return self.observers["test"].finish(batch)
        return self.observers["train" if self.trainer.training else "val"].finish(batch)

    @property
    def may_skip(self) -> bool:
        """Return whether batches may lack images that cannot be decoded."""
        return self.on_bad_image == "skip"

    @property
    def skipped(self) -> dict[str, str]:
        """Images that could not be decoded and were skipped: "split/index" -> reason."""
        return {f"{split}/{i}": reason for split, loader in self.loaders for i, reason in sorted(loader.skipped.items())}


def batches_begun(trainer: pl.Trainer) -> int:
    """How many batches of the current epoch were begun. Lightning counts them, also over a resume, in no public attribute."""
    try:
        begun: int = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    except AttributeError as error:
        raise RuntimeError(
            f"pytorch_lightning {version('pytorch-lightning')} does not count batches as 2.6 does: {error}"
        ) from error
    return begun
