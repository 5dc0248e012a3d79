"""Warnings about a config that can run: its resolutions, and the length of its training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kdx.config.learning_rate import optimizer_for_batch
from kdx.config.schema import RunConfig
from kdx.data.source import Images
from kdx.experiment.build import Parts

SAMPLE = 16  # images whose size is looked at
POINTS = 10_000  # steps at which the schedule is evaluated
LONG = 0.5  # share of the training; a longer warm-up is warned about


class Length(NamedTuple):
    """Optimizer steps per epoch, and of the whole training."""

    per_epoch: float
    total: int


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


def about_pixels(config: RunConfig, train: Images) -> Iterator[str]:
    """Yield warnings about a distilled student that sees more pixels than its teacher, or than there are."""
    side, teacher = config.student_resolution, config.resolution.teacher
    if config.teacher is None and config.peers is None:  # also the training of a teacher, whose pretraining may need more
        return
    if config.teacher is not None and side > teacher:
        larger = f"resolution.student={side} is larger than resolution.teacher={teacher}"
        yield f"{larger}: the teacher sees fewer pixels than its student"
    sides = []
    for i in np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int)):
        try:
            sides.append(max(train[int(i)].shape[1:]))
        except ValueError:  # an image that cannot be decoded; data.on_bad_image decides what happens in training
            continue
    if sides and side > max(sides):
        yield f"resolution.student={side} is larger than the images ({max(sides)} px): enlarged images have no further detail"


def about_val(config: RunConfig, length: Length) -> Iterator[str]:
    """Yield a warning if the training ends before the first validation."""
    first = (config.trainer.get("check_val_every_n_epoch") or 1) * math.ceil(length.per_epoch)
    if 0 < length.total < first:
        yield (
            f"trainer.max_steps={length.total} ends before the first validation, after {first} steps, so the last weights are "
            f"tested: use trainer.max_steps={first} or more, or trainer.limit_train_batches=N for short epochs"
        )


def about_lr(parts: Parts, length: Length) -> Iterator[str]:
    """Yield a warning if the warm-up takes most of the training, or the learning rate stays far below optimizer.lr."""
    schedule, total = parts.lr_schedule, length.total
    if total < 1:
        return
    warmup = schedule.warmup(length.per_epoch)
    steps = {int(step) for step in np.linspace(0, total - 1, min(total, POINTS))} | {min(warmup, total - 1)}
    reached = max(schedule(step, total, length.per_epoch) for step in steps)
    if warmup > LONG * total:
        key = "warmup_steps" if schedule.warmup_steps else "warmup_epochs"
        lr = optimizer_for_batch(parts.config).get("lr")
        value = f"{key}={getattr(schedule, key):g}"
        yield (
            f"lr_schedule.{value}: the warm-up takes {warmup} steps and the training {total}, so lr reaches {reached:.1%} of "
            f"optimizer.lr{'' if lr is None else f'={lr}'}: use a shorter warm-up, or increase trainer.max_epochs"
        )
