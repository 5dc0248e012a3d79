"""From parts, data and weights to a Lightning module and a data module."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kdx.config.check import ConfigError, members
from kdx.data.cache import cached, key
from kdx.data.duplicates import count_duplicates
from kdx.data.source import Images, SplitName
from kdx.data.splits import carve
from kdx.distiller import Cohort, Distiller
from kdx.experiment import build
from kdx.networks import weights
from kdx.networks.features import FeatureTaps
from kdx.networks.network import Network
from kdx.teachers.ensemble import Ensemble
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training import preflight, stored
from kdx.training.datamodule import DataModule
from kdx.training.module import DistillationModule, seed_everything
from kdx.types import LossContext, Pair
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
    if data.batch_size > len(splits["train"]):
        size = len(splits["train"])
        raise ConfigError(f"data.batch_size={data.batch_size}, but there are {size} training images: give at most {size}")
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


def check_features(cfg: DictConfig, parts: build.Parts) -> None:
    """ConfigError, with the paths that exist, if a loss asks for a feature that its network does not have.

    It needs no weights, so it is found before a teacher is trained.
    """
    wanted = {"student": parts.objective.student_features, "teacher.network": parts.objective.teacher_features}
    for node, paths in wanted.items():
        if paths:
            with torch.device("meta"):
                network = make_network(cfg, node, parts, build.count_classes(cfg, parts), bare=True)
            try:
                FeatureTaps(network.model, paths)
            except ValueError as error:
                raise ConfigError(f"features of {node}: {error}") from None


def make_network(cfg: DictConfig, node: str, parts: build.Parts, num_classes: int, bare: bool = False) -> Network:
    """The network mounted at `node`, made for the data set's classes, channels and colors (unless it knows its own).

    A `bare` one gets no weights from anywhere.
    """
    source = parts.source
    config: Any = OmegaConf.select(cfg, node)
    if bare:
        config = OmegaConf.merge(config, {"pretrained": False, "init": None})
    colors = {} if config.get("mean") is not None else {"mean": source.mean, "std": source.std}
    factory = build.make(config, node)
    try:
        network: Network = factory(num_classes=num_classes, in_channels=source.channels, **colors)
    except ValueError as error:
        raise ConfigError(f"{node}: {error}") from None
    return network


def load_teacher(
    cfg: DictConfig, parts: build.Parts, num_classes: int, files: Mapping[str, Path | None]
) -> OnlineTeacher | Ensemble | None:
    """The teacher, or the ensemble of its members, with weights from `files`; ConfigError if they do not fit."""
    loaded: dict[str, OnlineTeacher] = {}
    for path, member in members(cfg).items():
        network = make_network(cfg, f"{path}.network", parts, num_classes)
        name = path.rpartition(".")[2]
        file = files[name]
        if file is not None:
            try:
                weights.load(network.model, file)
            except ValueError as error:
                raise ConfigError(f"{path}.checkpoint: {error}") from None
        loaded[name] = OnlineTeacher(network, member.resolution)
    if not loaded:
        return None
    if cfg.teacher.members is None:
        return loaded["teacher"]
    try:
        return Ensemble(loaded, cfg.teacher.combine)
    except ValueError as error:
        raise ConfigError(f"teacher.members: {error}") from None


def make_distiller(cfg: DictConfig, parts: build.Parts, num_classes: int, teacher: Teacher | None) -> Distiller | Cohort:
    """The student with its teacher, or with its peers."""
    student = make_network(cfg, "student", parts, num_classes)
    if parts.temperature is not None:
        parts.temperature.connect(num_classes)
    if cfg.peers is not None:
        peers = {name: make_network(cfg, f"peers.members.{name}", parts, num_classes) for name in cfg.peers.members}
        return Cohort(student, peers, parts.temperature, cfg.peers.combine)
    wanted = parts.objective.student_features, parts.objective.teacher_features
    try:
        return Distiller(student, teacher, parts.temperature, *wanted)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def connect(cfg: DictConfig, parts: build.Parts, distiller: Distiller | Cohort, train: Images) -> None:
    """Let the losses build their projectors and memories, which depend on the networks and the data."""
    channels = parts.source.channels
    sides = max(build.student_resolutions(cfg)), cfg.resolution.teacher
    labels = None if train.labels is None else torch.from_numpy(train.labels)
    images = [torch.zeros(2, channels, side, side) for side in sides]
    if isinstance(distiller, Cohort):
        around = LossContext(distiller.student.num_classes, len(train), labels)
    else:
        around = distiller.loss_context(images[0], images[1], labels, len(train))
    try:
        parts.objective.connect(around)
    except ValueError as error:
        raise ConfigError(f"losses: {error}") from None


def assemble(
    cfg: DictConfig, parts: build.Parts, splits: Mapping[SplitName, Images], files: Mapping[str, Path | None]
) -> Experiment:
    """Networks with their weights, data module and Lightning module. `files` hold the weights of the teacher's members."""
    num_classes = build.count_classes(cfg, parts)
    teacher = load_teacher(cfg, parts, num_classes, files)
    seed_everything(cfg.seed)
    distiller = make_distiller(cfg, parts, num_classes, teacher)
    connect(cfg, parts, distiller, splits["train"])
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
        return preflight.inspect(teacher, batches, parts.calibration, num_classes, parts.metrics)

    def store_targets(module: DistillationModule) -> Tensor:
        assert teacher is not None
        own = Pair(cfg.resolution.teacher, cfg.resolution.teacher)
        crops = range(parts.policy.teacher_crops)
        filters = (cfg.interpolation.teacher, cfg.interpolation.teacher)
        views = [stored.StoredCrop(parts.policy, crop) for crop in crops]
        others, flip = build.other_resolutions(cfg), build.mirrored(cfg, parts)
        looks = [
            Observer(view, own, num_classes, flip=flip, interpolations=filters, other_resolutions=others) for view in views
        ]
        passes = (datamodule.batches("train", look, module.device) for look in looks)
        return stored.table(teacher, passes, len(splits["train"]), module.device)

    unused = (
        [name for name, metric in parts.metrics.items() if metric.needs_teacher] if cfg.teacher is cfg.peers is None else []
    )
    if unused:
        log.warning("no teacher: metrics.%s is left out", unused[0])
    module = DistillationModule(
        distiller,
        parts.objective,
        parts.optimizer,
        parts.lr_schedule,
        cfg.decay,
        labels=parts.source.labels,
        added_metrics=parts.metrics,
        inspect_teacher=inspect_teacher if teacher is not None else None,
        store_targets=store_targets if teacher is not None and parts.teacher_is_stored else None,
    )
    return Experiment(module, datamodule, teacher)
