"""Assembly of the Lightning module and the data module from parts, data and weights."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kdx.config.errors import ConfigError
from kdx.config.schema import Node, RunConfig
from kdx.data.loaders import workers
from kdx.data.source import Images, SplitName
from kdx.distiller import Cohort, Distiller
from kdx.experiment import build
from kdx.experiment.answers import examination, open_answers
from kdx.experiment.build import Parts
from kdx.experiment.judging import class_faults, judges, report_faults
from kdx.experiment.networks import arithmetic, channels_last, fused_optimizer, gpus_here, make_network, normalizations
from kdx.experiment.shared import about_answers, about_batches, shared_answers
from kdx.experiment.teacher import MemberWeights
from kdx.experiment.teacher_classes import propose_map
from kdx.networks import weights
from kdx.networks.arithmetic import laid_out
from kdx.networks.network import Network
from kdx.networks.normalization import others
from kdx.teachers.class_order import Classes
from kdx.teachers.ensemble import Ensemble
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training import preflight, stored
from kdx.training.answering import TeacherAnswers
from kdx.training.datamodule import DataModule
from kdx.training.module import DistillationModule
from kdx.training.random_state import seed_everything
from kdx.training.telemetry import Telemetry
from kdx.types import LossContext, Pair
from kdx.views.observer import Observer
from kdx.views.render import Resizing

log = logging.getLogger("kdx")

EVAL_PIXELS, EVAL_IMAGES = 1 << 19, 512  # at most in a batch that is larger than those of training


@dataclass
class Experiment:
    """The Lightning module, the data module and the teacher of a run."""

    module: DistillationModule
    datamodule: DataModule
    teacher: Teacher | None
    caveats: dict[str, str] = field(default_factory=dict)  # by a word for the kind: what limits the meaning of the numbers


def load_teacher(parts: Parts, num_classes: int, files: Mapping[str, MemberWeights]) -> OnlineTeacher | Ensemble | None:
    """Return the teacher, or the ensemble of its members, with weights from `files`. ConfigError if they do not fit."""
    loaded: dict[str, OnlineTeacher] = {}
    for path, member in parts.config.members.items():
        name = path.rpartition(".")[2]
        file, outputs = files[name].file, files[name].outputs
        outside = member.checkpoint if member.run is None else None
        node = {**member.architecture, **({} if file is None else {"pretrained": False, "init": None}), **files[name].colors}
        possible = normalizations(node, parts.source, file, member.key if outside else None)
        network = make_network(node, f"{path}.network", parts.source, outputs.count, possible[0] if file is not None else None)
        try:
            if file is not None:
                weights.load(network.model, file, member.key if outside else None, f"{path}.key")
            if outputs.chosen is not None:
                network.keep_classes(outputs.chosen)
        except ValueError as error:
            raise ConfigError(f"{path}.checkpoint: {error}") from None
        alternatives = others(possible, *network.colors) if outside is not None else []
        loaded[name] = OnlineTeacher(network, member.resolution, alternatives, **arithmetic(parts.config, member))
    teacher = parts.config.teacher
    if teacher is None:
        return None
    if teacher.members is None:
        return loaded["teacher"]
    try:
        return Ensemble(loaded, teacher.combine)
    except ValueError as error:
        raise ConfigError(f"teacher.members: {error}") from None


def classes_in_question(parts: Parts, files: Mapping[str, MemberWeights], folder: Path) -> dict[str, Classes]:
    """Return the classes of the members, by name, that were trained elsewhere, perhaps in another order of the classes.

    A better order is written to a class map in `folder`.
    """
    names, found = parts.source.names, {}
    for path, member in parts.config.members.items():
        own = files[path.rpartition(".")[2]]
        if member.checkpoint is not None or own.file is None:
            remedy = functools.partial(propose_map, path=path, own=own.outputs, names=names, folder=folder)
            found[path.rpartition(".")[2]] = Classes(names, remedy)
    return found


def make_distiller(parts: Parts, teacher: Teacher | None) -> Distiller | Cohort:
    """Return the student with its teacher or its peers, as one module."""
    config, source, num_classes = parts.config, parts.source, parts.num_classes

    def own(node: Node, path: str) -> Network:
        network = make_network(node, path, source, num_classes)
        return laid_out(network, config.student_resolution) if channels_last(config) else network

    student = own(config.student, "student")
    if config.trainable == "head":
        student.freeze_all_but_head()
    if parts.temperature is not None:
        parts.temperature.connect(num_classes)
    if config.peers is not None:
        nodes = config.peers.members.items()
        peers = {name: own(node, f"peers.members.{name}") for name, node in nodes}
        return Cohort(student, peers, parts.temperature, config.peers.combine)
    features = parts.objective.student_features, parts.objective.teacher_features
    try:
        return Distiller(student, teacher, parts.temperature, *features)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def connect(parts: Parts, distiller: Distiller | Cohort, train: Images) -> None:
    """Build the projectors and memory banks of the losses, whose sizes depend on the networks and the data."""
    channels = parts.source.channels
    sides = parts.config.student_resolution, parts.config.resolution.teacher
    labels = None if train.labels is None else torch.from_numpy(train.labels)
    images = [torch.zeros(2, channels, side, side) for side in sides]
    if isinstance(distiller, Cohort):
        context = LossContext(distiller.student.num_classes, len(train), labels)
    else:
        context = distiller.loss_context(images[0], images[1], labels, len(train))
    try:
        parts.objective.connect(context)
    except ValueError as error:
        raise ConfigError(f"losses: {error}") from None


def assemble(parts: Parts, splits: Mapping[SplitName, Images], files: Mapping[str, MemberWeights], folder: Path) -> Experiment:
    """Return module, data module and teacher with their weights; `files` are those of the teacher's members.

    What the preflight proposes is written to `folder`, that of the run.
    """
    config, num_classes = parts.config, parts.num_classes
    teacher = load_teacher(parts, num_classes, files)
    caveats: dict[str, str] = {}
    seed_everything(config.seed)
    distiller = make_distiller(parts, teacher)
    if judges(config):
        doubts = [own.outputs.doubt for own in files.values()]
        report_faults(class_faults(doubts), config, caveats)
    connect(parts, distiller, splits["train"])
    if parts.policy.seed is not None:
        caveats["views_seed"] = f"views.seed={parts.policy.seed}: all seeds have the same views, whose chance the spread lacks"
    observers = build.observers(parts, num_classes)
    datamodule = DataModule(
        splits,
        observers,
        batch_size=config.data.batch_size,
        seed=config.seed,
        loader=config.data.loader,
        num_workers=workers(config.data.num_workers, gpus_here(config)),
        budget=config.data.resident_budget_mb << 20,
        on_bad_image=config.data.on_bad_image,
        shuffle_buffer=config.data.shuffle_buffer,
        eval_batch_size=eval_batch_size(config),
        sharing=parts.sharing,
        about=functools.partial(about_batches, parts, splits),
    )

    examined = examination(parts, teacher, datamodule, folder) if teacher is not None else None

    def inspect_teacher(module: DistillationModule) -> preflight.Preflight:
        assert teacher is not None
        teacher.to(module.device)
        batches = datamodule.batches("val", observers["test"], module.device)
        classes = classes_in_question(parts, files, folder)
        found = preflight.inspect(
            *(teacher, batches, parts.calibration, num_classes, parts.metrics, judges(config), classes, examined)
        )
        if "teacher/accuracy" in found.metrics:
            text = "The teacher: val accuracy %.4f, ECE %.4f (%.4f in bins of equal mass) on %d images at %d px"
            numbers = [found.metrics[f"teacher/{name}"] for name in ("accuracy", "ece", "ece_mass")]
            log.info(text, *numbers, len(splits["val"]), config.resolution.teacher)
        if "teacher_at_student_resolution/entropy" not in found.metrics:
            log.info("The teacher does not run at the student's %d px, and is not measured there", config.student_resolution)
        report_faults(found.faults, config, caveats)
        return found

    def store_targets(module: DistillationModule) -> Tensor:
        assert teacher is not None
        passes = (datamodule.batches("train", look, module.device) for look in stored_views(parts, num_classes))
        make = functools.partial(stored.table, teacher, passes, len(splits["train"]), module.device)
        return parts.sharing.once("targets", functools.partial(about_answers, parts, teacher, datamodule), make)

    def opened(module: DistillationModule) -> TeacherAnswers | None:
        assert teacher is not None
        kept = open_answers(parts, teacher, datamodule, module.device, folder)
        return shared_answers(parts, teacher, datamodule, kept)

    if config.teacher is None and config.peers is None:
        for name, metric in parts.metrics.items():
            if metric.needs_teacher:
                log.warning("metrics.%s needs a teacher and is not measured (teacher=none)", name)
    module = DistillationModule(
        distiller,
        parts.objective,
        parts.optimizer,
        parts.lr_schedule,
        config.decay,
        labels=parts.source.labels,
        fused=fused_optimizer(config),
        added_metrics=parts.metrics,
        inspect_teacher=inspect_teacher if teacher is not None else None,
        store_targets=store_targets if teacher is not None and parts.teacher_is_stored else None,
        open_answers=opened if teacher is not None else None,
        examination=examined,
        telemetry=Telemetry(parts.sharing.clock),
    )
    return Experiment(module, datamodule, teacher, caveats)


def eval_batch_size(config: RunConfig) -> int:
    """Return the batch over all devices on val and test: several training batches at once, if images are small.

    Small batches would cost more in calls than in arithmetic. Logits change by rounding, so not with `speed=exact`; and not
    where the number of batches is limited.
    """
    size = config.data.batch_size
    limited = any(config.trainer.get(f"limit_{loop}_batches") not in (None, 1.0) for loop in ("val", "test"))
    if config.speed == "exact" or limited:
        return size
    sides = *config.student_resolutions, config.resolution.teacher, *config.other_resolutions
    return size * max(1, min(EVAL_PIXELS // max(sides) ** 2, EVAL_IMAGES) // size)


def stored_views(parts: Parts, num_classes: int) -> list[Observer]:
    """Return the observers for a teacher with fixed views of train: one per stored crop."""
    config = parts.config
    side, interpolation = config.resolution.teacher, config.interpolation.teacher
    return [
        Observer(
            stored.StoredCrop(parts.policy, crop),
            Pair(side, side),
            num_classes,
            flip=parts.flip,
            resizing=Resizing(interpolation, interpolation),
            other_resolutions=config.other_resolutions,
        )
        for crop in range(parts.policy.teacher_crops)
    ]
