"""How long a run trains, in steps, and how often it validates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from kdx.config.schema import AUTO, RunConfig
from kdx.data.source import Images, SplitName

KEY = "check_val_every_n_epoch"  # of the trainer
SHARE = 0.05  # of the forward and backward passes of the student, for validation
PASSES = 3  # forward passes of the student that cost as much as a training step of one image


class Length(NamedTuple):
    """Optimizer steps per epoch, and of the whole training."""

    per_epoch: float
    total: int

    @property
    def passes(self) -> float:
        """Passes over the training images. Lightning makes a last step of the batches of an epoch that are left."""
        return self.total / max(math.ceil(self.per_epoch), 1)

    @property
    def epochs(self) -> int:
        """The number of epochs, the last of which may be cut short; at least 1."""
        return max(math.ceil(self.passes), 1)


def training_length(config: RunConfig, train_size: int) -> Length:
    """Return the number of optimizer steps for this many training images, as Lightning counts them."""
    trainer = config.trainer
    batches = train_size // config.data.batch_size
    limit = trainer.get("overfit_batches") or trainer.get("limit_train_batches")
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    accumulated = trainer.get("accumulate_grad_batches") or 1
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    total = steps if epochs in (None, -1) else math.ceil(batches / accumulated) * epochs
    return Length(batches / accumulated, total if steps in (None, -1) else min(total, steps))


def validation_interval(config: RunConfig, train_size: int, val_size: int) -> int:
    """Return the epochs between validations.

    "auto" validates as often as takes at most 5 % of the student's arithmetic, so that the number is the same on every machine;
    a little more rarely if the last epoch is validated then.
    """
    every = config.trainer.get(KEY)
    if every != AUTO:
        return int(every or 1)
    length = training_length(config, train_size)
    images = length.per_epoch * (config.trainer.get("accumulate_grad_batches") or 1) * config.data.batch_size
    least = min(max(math.ceil(val_size * (1 - SHARE) / SHARE / (PASSES * max(images, 1))), 1), length.epochs)
    return next((some for some in range(least, 2 * least) if length.epochs % some == 0), least)


def settled(config: RunConfig, splits: Mapping[SplitName, Images]) -> RunConfig:
    """Return the config with the number of epochs between validations in the place of "auto"; the same object without."""
    if config.trainer.get(KEY) != AUTO:
        return config
    every = validation_interval(config, len(splits["train"]), len(splits["val"]))
    return replace(config, trainer={**config.trainer, KEY: every})
