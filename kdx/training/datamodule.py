"""Brings a source's splits to the device and shows them to the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pytorch_lightning as pl
import torch

from kdx.data.loaders import Loader, Position, ResidentLoader, StreamedLoader, at_start
from kdx.data.sampler import Sampler
from kdx.data.source import Images, SplitName
from kdx.types import Batch, Examples
from kdx.views.observer import Observer


class DataModule(pl.LightningDataModule):
    """Loaders of Examples for Lightning, and the observers that turn them into batches on the device.

    `batch_size` is the batch over all devices. `loader="auto"` keeps a split resident if its decoded pixels fit `budget` bytes.
    """

    def __init__(
        self,
        splits: Mapping[SplitName, Images],
        observers: Mapping[str, Observer],
        *,
        batch_size: int,
        seed: int,
        loader: Literal["auto", "resident", "streamed"] = "auto",
        num_workers: int = 0,
        budget: int = 2 << 30,
    ) -> None:
        super().__init__()
        self.splits, self.observers = splits, observers
        self.batch_size, self.seed = batch_size, seed
        self.kind, self.num_workers, self.budget = loader, num_workers, budget

    def _loader(self, split: SplitName, position: Position = at_start) -> Loader:
        assert self.trainer is not None
        images = self.splits[split]
        sampler = Sampler(
            len(images),
            self.batch_size,
            self.seed,
            train=split == "train",
            halo=self.observers[split].halo,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        resident = self.kind == "resident" or (self.kind == "auto" and images[0].nbytes * len(images) <= self.budget)
        if resident:
            return ResidentLoader(images, sampler, position, self.trainer.strategy.root_device)
        return StreamedLoader(images, sampler, position, self.num_workers)

    def train_dataloader(self) -> Loader:
        return self._loader("train", self._position)

    def val_dataloader(self) -> Loader:
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        return self._loader("test")

    def _position(self) -> tuple[int, int]:
        """Where training is: asked when the first batch of a pass is, so after a resume it is the batch to go on with."""
        assert self.trainer is not None
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def transfer_batch_to_device(self, batch: Examples, device: torch.device, dataloader_idx: int) -> Examples:
        return batch.to(device)

    def on_after_batch_transfer(self, batch: Examples, dataloader_idx: int) -> Batch:
        """The views, rendered on the device."""
        assert self.trainer is not None
        if self.trainer.testing:
            return self.observers["test"](batch)
        return self.observers["train" if self.trainer.training else "val"](batch)
