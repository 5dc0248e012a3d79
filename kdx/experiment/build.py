"""From a checked config to objects: the one place where `instantiate` is called."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from kdx.config.check import ConfigError, members
from kdx.config.hydra_versions import of_instantiate
from kdx.data.source import Source
from kdx.losses.objective import Objective
from kdx.teachers.calibration import TemperatureScaling
from kdx.temperatures.base import Temperature
from kdx.training.optimizers.schedules import LrSchedule
from kdx.types import Pair
from kdx.views.augmentations import Augmentation
from kdx.views.crops import Crop
from kdx.views.mixing import Mixing
from kdx.views.observer import Observer
from kdx.views.policies import SharedView, ViewPolicy


def make(node: Any, path: str, **arguments: Any) -> Any:
    """The object a config node describes; None for None. ConfigError names the path where the constructor objects."""
    if node is None:
        return None
    try:
        return instantiate(node, _convert_="all", **of_instantiate(node), **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if not isinstance(cause, (ValueError, TypeError, InstantiationException)):
            raise
        where = re.search(r"full_key: (\S+)", str(error))
        raise ConfigError(f"{where[1] if where else path}: {str(cause).strip().splitlines()[0]}") from cause


@dataclass
class Parts:
    """All of a run that costs nothing to build: no network, no data, no weights."""

    source: Source
    policy: ViewPolicy
    mixing: Mixing | None
    augmentation: Augmentation | None
    eval_crop: Crop
    objective: Objective
    temperature: Temperature | None
    calibration: TemperatureScaling | None
    lr_schedule: LrSchedule
    optimizer: Callable[..., torch.optim.Optimizer]
    separate: bool  # does each member of the teacher teach with a loss of its own?
    own_pixels: bool  # does the teacher see its own pixels in training, and not the student's?

    @property
    def teacher_is_stored(self) -> bool:
        """Whether all that is asked of the teacher on train is one answer that never changes, so that it is asked once."""
        still = self.policy.teacher_fixed and self.mixing is None and self.augmentation is None
        return still and self.own_pixels and not self.objective.teacher_features and not self.separate


def observers(cfg: DictConfig, parts: Parts, num_classes: int) -> dict[str, Observer]:
    """How each split is seen; val by the student only, for the teacher's val logits are known from the preflight."""
    choices = student_resolutions(cfg)
    resolution = Pair(cfg.resolution.teacher, max(choices))
    own = (cfg.interpolation.teacher, cfg.interpolation.student)
    still = SharedView(parts.eval_crop)
    others = other_resolutions(cfg)
    try:
        train = Observer(
            parts.policy,
            resolution,
            num_classes,
            mixing=parts.mixing,
            augmentation=parts.augmentation,
            flip=mirrored(cfg, parts),
            teacher=cfg.teacher is not None and not parts.teacher_is_stored,
            student_resolutions=choices,
            interpolations=own,
            teacher_sees_students=cfg.data.teacher_view == "student",
            other_resolutions=others,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return {
        "train": train,
        "val": Observer(still, resolution, num_classes, teacher=False, interpolations=own),
        "test": Observer(
            still, resolution, num_classes, teacher=cfg.teacher is not None, interpolations=own, other_resolutions=others
        ),
    }


def mirrored(cfg: DictConfig, parts: Parts) -> bool:
    """Whether training images are mirrored half of the time."""
    return parts.source.flip if cfg.data.flip is None else bool(cfg.data.flip)


def other_resolutions(cfg: DictConfig) -> list[int]:
    """The resolutions, beside the teacher's, that members of an ensemble ask for."""
    asked = {member.resolution for member in members(cfg).values()}
    return sorted(asked - {None, cfg.resolution.teacher})


def student_resolutions(cfg: DictConfig) -> list[int]:
    """The resolutions that the student may see in training."""
    student = cfg.resolution.student
    return [int(r) for r in student] if isinstance(student, ListConfig) else [int(student)]


def count_classes(cfg: DictConfig, parts: Parts) -> int:
    """How many classes the networks tell apart: the data set's, else what the config or the teacher's weights say."""
    known = parts.source.num_classes or cfg.data.num_classes
    for member in members(cfg).values():
        if known is None and member.checkpoint is not None:
            from kdx.networks.weights import head_classes

            known = head_classes(Path(member.checkpoint))
    if known is None:
        raise ConfigError("without labels nobody knows how many classes there are: give data.num_classes=...")
    return int(known)


def unchecked(cfg: DictConfig) -> Parts:
    """The parts of a run that was checked when it was trained; its data need not be here."""
    return Parts(
        source=make(cfg.data.source, "data.source"),
        policy=make(cfg.views, "views"),
        mixing=make(cfg.mixing, "mixing"),
        augmentation=make(cfg.augmentation, "augmentation"),
        eval_crop=make(cfg.data.eval_crop, "data.eval_crop"),
        objective=Objective({name: make(term, f"losses.{name}") for name, term in cfg.losses.items()}),
        temperature=make(cfg.temperature, "temperature"),
        calibration=make(cfg.calibration, "calibration"),
        lr_schedule=make(cfg.lr_schedule, "lr_schedule"),
        optimizer=make(cfg.optimizer, "optimizer"),
        separate=cfg.teacher is not None and cfg.teacher.members is not None and cfg.teacher.combine == "losses",
        own_pixels=cfg.data.teacher_view == "full",
    )


def parts(cfg: DictConfig) -> Parts:
    """Build what is cheap and let the objects contradict each other before anything is read. ConfigError says the remedy."""
    built = unchecked(cfg)
    try:
        built.optimizer([torch.nn.Parameter(torch.zeros(1, 1))])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {error}") from None
    observers(cfg, built, num_classes=2)
    _check_terms(cfg, built)
    _check_devices(cfg)
    try:
        built.source.check()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    num_classes = count_classes(cfg, built)
    for name, term in built.objective.terms.items():
        if num_classes < term.loss.min_classes:
            raise ConfigError(f"losses.{name}: {term.loss.too_few_classes}")
    for path, member in members(cfg).items():
        if member.checkpoint is not None:
            _check_checkpoint(path, Path(member.checkpoint), num_classes)
    return built


def _check_terms(cfg: DictConfig, parts: Parts) -> None:
    """Every loss finds what it needs, and nothing is there for no loss."""
    objective = parts.objective
    taught, tempered = objective.needs_teacher, objective.needs_temperature
    if taught and cfg.teacher is None and cfg.peers is None:
        raise ConfigError(f"losses.{taught[0]} compares with a teacher, and there is none: use losses=[ce], or teacher=online")
    if tempered and parts.temperature is None:
        raise ConfigError(f"losses.{tempered[0]} needs a distillation temperature: use temperature=constant")
    labeled = objective.needs_label
    if labeled and not parts.source.train_labels:
        raise ConfigError(f"losses.{labeled[0]} needs labels, and the data set has none: use losses=[kl]")
    single = objective.needs_one_label
    if single and parts.mixing is not None:
        raise ConfigError(f"losses.{single[0]} needs one class per image, and a mixed image has two: use mixing=none")
    if cfg.teacher is not None and not taught:
        raise ConfigError("there is a teacher, but no loss compares with it: use losses=[kl], or teacher=none")
    if cfg.peers is not None and not taught:
        raise ConfigError("there are peers, but no loss compares with them: use losses=[kd], or peers=none")
    compared = [name for name, term in objective.terms.items() if term.loss.teacher_features or term.loss.student_features]
    if compared and (cfg.peers is not None or (cfg.teacher is not None and cfg.teacher.members is not None)):
        raise ConfigError(f"losses.{compared[0]} compares features, which needs one teacher: use teacher=online")
    stored = getattr(parts.policy, "teacher_crops", 1) > 1
    if stored and compared:
        raise ConfigError(f"losses.{compared[0]} needs features, and a stored teacher has only logits: use views=ind_ic")
    if stored and not parts.teacher_is_stored:
        raise ConfigError(
            "views with stored teacher crops need a teacher that gives one answer per image: "
            "use augmentation=none, and combine=logits or probs in an ensemble"
        )
    if not parts.source.labels and cfg.monitor.startswith("val/student/") and not cfg.monitor.endswith("entropy"):
        raise ConfigError(f"monitor={cfg.monitor} needs labels on val: use monitor=val/kl monitor_mode=min")


def _check_devices(cfg: DictConfig) -> None:
    devices, accelerator = cfg.trainer.get("devices"), cfg.trainer.get("accelerator")
    found = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not found:
        raise ConfigError("trainer.accelerator=gpu, but there is no GPU here: use trainer=cpu")
    if isinstance(devices, int) and (accelerator in ("gpu", "cuda") or (accelerator == "auto" and found)) and devices > found:
        raise ConfigError(f"trainer.devices={devices}, but there are {found} GPUs here: give 1 to {found}")
    if isinstance(devices, int) and accelerator == "auto" and not found and devices > 1:
        raise ConfigError(f"trainer.devices={devices}, but there is no GPU here: use trainer=ddp trainer.accelerator=cpu")


def _check_checkpoint(path: str, file: Path, num_classes: int) -> None:
    from kdx.networks.weights import check_classes

    try:
        check_classes(file, num_classes)
    except ValueError as error:
        raise ConfigError(f"{path}.checkpoint: {error}") from None
