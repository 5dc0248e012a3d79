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
from omegaconf import DictConfig

from kdx.config import ConfigError
from kdx.data.source import Source
from kdx.losses.objective import Objective
from kdx.teachers.calibration import TemperatureScaling
from kdx.temperatures.base import Temperature
from kdx.training.schedules import LrSchedule
from kdx.types import Pair
from kdx.views.crops import Crop
from kdx.views.mixing import Mixing
from kdx.views.observer import Observer
from kdx.views.policies import SharedView, ViewPolicy


def make(node: Any, path: str, **arguments: Any) -> Any:
    """The object a config node describes; None for None. ConfigError names the path where the constructor objects."""
    if node is None:
        return None
    try:
        return instantiate(node, _convert_="all", **arguments)
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
    eval_crop: Crop
    objective: Objective
    temperature: Temperature | None
    calibration: TemperatureScaling | None
    lr_schedule: LrSchedule
    optimizer: Callable[..., torch.optim.Optimizer]

    @property
    def labels(self) -> bool:
        """Whether the examples have labels."""
        return self.source.num_classes > 0

    def observers(self, resolution: Pair, teacher: bool) -> dict[str, Observer]:
        """How each split is seen; val by the student only, for the teacher's val logits are known from the preflight."""
        classes, flip = self.source.num_classes, self.source.flip
        still = SharedView(self.eval_crop)
        at_students = Pair(resolution.student, resolution.student)
        try:
            train = Observer(self.policy, resolution, classes, mixing=self.mixing, flip=flip, teacher=teacher)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return {
            "train": train,
            "val": Observer(still, resolution, classes, teacher=False),
            "test": Observer(still, resolution, classes, teacher=teacher),
            "preflight": Observer(still, resolution, classes),
            "preflight_low": Observer(still, at_students, classes),
        }


def parts(cfg: DictConfig) -> Parts:
    """Build what is cheap and let the objects contradict each other before anything is read. ConfigError says the remedy."""
    built = Parts(
        source=make(cfg.data.source, "data.source"),
        policy=make(cfg.views, "views"),
        mixing=make(cfg.mixing, "mixing"),
        eval_crop=make(cfg.data.eval_crop, "data.eval_crop"),
        objective=Objective({name: make(term, f"losses.{name}") for name, term in cfg.losses.items()}),
        temperature=make(cfg.temperature, "temperature"),
        calibration=make(cfg.calibration, "calibration"),
        lr_schedule=make(cfg.lr_schedule, "lr_schedule"),
        optimizer=make(cfg.optimizer, "optimizer"),
    )
    try:
        built.optimizer([torch.nn.Parameter(torch.zeros(1, 1))])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {error}") from None
    built.observers(Pair(cfg.resolution.teacher, cfg.resolution.student), cfg.teacher is not None)
    taught = built.objective.needs_teacher
    if taught and cfg.teacher is None:
        raise ConfigError(f"losses.{taught[0]} compares with a teacher, and there is none: use losses=[ce], or teacher=online")
    if taught and built.temperature is None:
        raise ConfigError(f"losses.{taught[0]} needs a distillation temperature: use temperature=constant")
    labelled = built.objective.needs_label
    if labelled and not built.labels:
        raise ConfigError(f"losses.{labelled[0]} needs labels, and the data set has none: use losses=[kl]")
    if cfg.teacher is not None and not taught:
        raise ConfigError("there is a teacher, but no loss compares with it: use losses=[kl], or teacher=none")
    _check_devices(cfg)
    if cfg.teacher is not None and cfg.teacher.checkpoint is not None:
        _check_checkpoint(Path(cfg.teacher.checkpoint), built.source.num_classes)
    return built


def _check_devices(cfg: DictConfig) -> None:
    devices, accelerator = cfg.trainer.get("devices"), cfg.trainer.get("accelerator")
    found = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not found:
        raise ConfigError("trainer.accelerator=gpu, but there is no GPU here: use trainer=cpu")
    if isinstance(devices, int) and (accelerator in ("gpu", "cuda") or (accelerator == "auto" and found)) and devices > found:
        raise ConfigError(f"trainer.devices={devices}, but there are {found} GPUs here: give 1 to {found}")
    if isinstance(devices, int) and accelerator == "auto" and not found and devices > 1:
        raise ConfigError(f"trainer.devices={devices}, but there is no GPU here: use trainer=ddp trainer.accelerator=cpu")


def _check_checkpoint(path: Path, num_classes: int) -> None:
    from kdx.networks.weights import check_classes

    try:
        check_classes(path, num_classes)
    except ValueError as error:
        raise ConfigError(f"teacher.checkpoint: {error}") from None
