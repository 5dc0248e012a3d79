"""From parts, data and weights to a Lightning module and a data module."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kdx import build
from kdx.config import ConfigError
from kdx.data.cache import cached, key
from kdx.data.duplicates import count_duplicates
from kdx.data.source import Images, SplitName
from kdx.data.splits import carve
from kdx.distiller import Distiller
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training import preflight, stored
from kdx.training.datamodule import DataModule
from kdx.training.module import DistillationModule, seed_everything
from kdx.types import Pair
from kdx.views.observer import Observer

log = logging.getLogger("kdx")


@dataclass
class Experiment:
    """Everything that a run is made of."""

    module: DistillationModule
    datamodule: DataModule
    teacher: Teacher | None


def carve_splits(cfg: DictConfig, own: Mapping[SplitName, Images]) -> dict[SplitName, Images]:
    """train, val and test as the config wants them, from the data set's own splits, decoded on disk if there is a cache."""
    data = cfg.data
    try:
        if data.cache is not None:
            own = {name: cached(images, Path(data.cache), key(images, name), log.info) for name, images in own.items()}
        splits = carve(own, val=data.val_share, test=data.test_share, train_size=data.train_size, seed=data.split_seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    empty = [name for name, images in splits.items() if not len(images)]
    if empty:
        raise ConfigError(f"{empty[0]} has no image: raise data.{empty[0]}_share, or give more images")
    carved = [name for name in splits if name not in own]
    if carved:
        log.info("%s carved from train by data.split_seed=%d", " and ".join(carved), data.split_seed)
    return splits


def warn_of_duplicates(splits: Mapping[SplitName, Images]) -> int:
    """How many test images are training images too; said if there are any."""
    found = count_duplicates(splits["train"], splits["test"])
    if found:
        log.warning("%d of %d test images stand in train too: the test numbers are too good", found, len(splits["test"]))
    return found


def make_network(cfg: DictConfig, node: str, parts: build.Parts, num_classes: int) -> Network:
    """The network mounted at `node`, made for the data set's classes, channels and colours."""
    source = parts.source
    factory = build.make(OmegaConf.select(cfg, node), node)
    network: Network = factory(num_classes=num_classes, in_channels=source.channels, mean=source.mean, std=source.std)
    return network


def load_teacher(cfg: DictConfig, parts: build.Parts, num_classes: int, file: Path | None) -> OnlineTeacher | None:
    """The teacher with its weights; ConfigError if they do not fit."""
    if cfg.teacher is None:
        return None
    network = make_network(cfg, "teacher.network", parts, num_classes)
    if file is not None:
        try:
            weights.load(network.model, file)
        except ValueError as error:
            raise ConfigError(f"teacher.checkpoint: {error}") from None
    return OnlineTeacher(network)


def assemble(cfg: DictConfig, parts: build.Parts, splits: Mapping[SplitName, Images], file: Path | None) -> Experiment:
    """Networks with their weights, data module and Lightning module. `file` holds the teacher's weights."""
    num_classes = build.count_classes(cfg, parts)
    teacher = load_teacher(cfg, parts, num_classes, file)
    seed_everything(cfg.seed)
    distiller = Distiller(make_network(cfg, "student", parts, num_classes), teacher, parts.temperature)
    observers = build.observers(cfg, parts, num_classes)
    datamodule = DataModule(
        splits,
        observers,
        batch_size=cfg.data.batch_size,
        seed=cfg.seed,
        loader=cfg.data.loader,
        num_workers=cfg.data.num_workers,
        budget=cfg.data.resident_budget_mb << 20,
        on_bad_image=cfg.data.on_bad_image,
    )

    def inspect_teacher(module: DistillationModule) -> preflight.Preflight:
        assert teacher is not None
        teacher.to(module.device)
        batches = datamodule.batches("val", observers["test"], module.device)
        return preflight.inspect(teacher, batches, parts.calibration, num_classes)

    def store_targets(module: DistillationModule) -> Tensor:
        assert teacher is not None
        own = Pair(cfg.resolution.teacher, cfg.resolution.teacher)
        crops = range(parts.policy.teacher_crops)
        filters = (cfg.interpolation.teacher, cfg.interpolation.teacher)
        views = [stored.StoredCrop(parts.policy, crop) for crop in crops]
        looks = [Observer(view, own, num_classes, flip=parts.source.flip, interpolations=filters) for view in views]
        passes = (datamodule.batches("train", look, module.device) for look in looks)
        return stored.table(teacher, passes, len(splits["train"]), module.device)

    module = DistillationModule(
        distiller,
        parts.objective,
        parts.optimizer,
        parts.lr_schedule,
        cfg.decay,
        labels=parts.source.labels,
        inspect_teacher=inspect_teacher if teacher is not None else None,
        store_targets=store_targets if teacher is not None and parts.teacher_is_stored else None,
    )
    return Experiment(module, datamodule, teacher)
