"""What a run will do, from its config and the number of its images: nothing is decoded or trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdx.config.learning_rate import optimizer_for_batch
from kdx.config.schema import RunConfig
from kdx.data.source import SplitName
from kdx.experiment import build
from kdx.experiment.build import Parts
from kdx.experiment.data import carve_splits, read_splits
from kdx.experiment.length import Length, training_length, validation_interval
from kdx.experiment.teacher import existing, key, teacher_run
from kdx.teachers.store import Store

POINTS = 48  # of the learning rate


@dataclass(frozen=True)
class Outline:
    """What a run will do. `lr` are learning rates at equal distances from the first step to the last one."""

    config: RunConfig
    images: Mapping[SplitName, int]
    length: Length
    every: int
    lr: list[float]
    teachers: Mapping[str, Training]

    @property
    def batches(self) -> int:
        """Batches of the whole training."""
        accumulated = self.config.trainer.get("accumulate_grad_batches") or 1
        return round(self.length.passes * self.length.per_epoch * accumulated)

    @property
    def validations(self) -> int:
        """Passes over val in the training."""
        return int(self.length.passes / self.every)


@dataclass(frozen=True)
class Training:
    """The training of a member of the teacher, its folder, and whether it is done already."""

    folder: Path
    done: bool
    outline: Outline


def outline(parts: Parts) -> Outline:
    """Return what the run will do. ConfigError if its data or its teacher's weights cannot be read."""
    config, teachers = parts.config, {}
    published = read_splits(config.data, parts.source)
    splits = carve_splits(config.data, published)
    store = Store(Path(config.outputs) / "teachers")
    for path, member in config.members.items():
        if existing(parts, path) is None:
            recipe = teacher_run(config, member)
            name = key(recipe, published, config.data.source)
            teachers[path] = Training(store.folder(name), store.has(name), outline(build.parts(recipe)))
    train, val = len(splits["train"]), len(splits["val"])
    length = training_length(config, train)
    images = {name: len(split) for name, split in splits.items()}
    return Outline(config, images, length, validation_interval(config, train, val), _lr(parts, length), teachers)


def _lr(parts: Parts, length: Length) -> list[float]:
    lr = optimizer_for_batch(parts.config).get("lr")
    if lr is None or length.total < 1:
        return []
    steps = np.linspace(0, length.total - 1, min(POINTS, length.total)).astype(int)
    rates = [lr * parts.lr_schedule(int(step), length.total, length.per_epoch) for step in steps]
    return [rate for rate in rates if math.isfinite(rate)]
