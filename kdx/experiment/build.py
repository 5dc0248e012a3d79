"""Objects from a checked config; the only module that calls `instantiate`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kdx.config.errors import ConfigError
from kdx.config.hydra_versions import of_instantiate
from kdx.config.identity import job_identity
from kdx.config.learning_rate import optimizer_for_batch
from kdx.config.plugins import check_targets
from kdx.config.schema import RunConfig, to_plain
from kdx.data.source import Source
from kdx.experiment import resume
from kdx.experiment.contradictions import check_compile, check_devices, check_jpeg_px, check_source, check_terms
from kdx.losses.objective import Objective, Term
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.importing import import_torchmetrics
from kdx.teachers.calibration import Calibrator
from kdx.temperatures.base import Temperature
from kdx.training.optimizers.schedules import LrSchedule
from kdx.training.sharing import Sharing
from kdx.types import Pair
from kdx.views.augmentations import Augmentation
from kdx.views.crops import Crop
from kdx.views.mixing import Mixing
from kdx.views.observer import Observer
from kdx.views.policies import SharedView, ViewPolicy
from kdx.views.render import Resizing

if TYPE_CHECKING:
    from kdx.experiment.probe import Probes


def make(node: Any, path: str, **arguments: Any) -> Any:
    """Return the object that a config node describes; None for None.

    ConfigError, with the path, if the node names something that a config may not name, or if the constructor fails.
    """
    if node is None:
        return None
    check_targets(OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node, path)
    try:
        return instantiate(node, _convert_="all", **of_instantiate(node), **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        of_lightning = type(cause).__name__ == "MisconfigurationException"  # by name: Lightning's import takes seconds
        if not of_lightning and not isinstance(cause, (ValueError, TypeError, InstantiationException)):
            raise
        where = re.search(r"full_key: (\S+)", str(error))
        raise ConfigError(f"{path}{'.' + where[1] if where else ''}: {str(cause).strip().splitlines()[0]}") from cause


@dataclass
class Parts:
    """The objects of a run that are cheap to build: no networks, data or weights."""

    config: RunConfig
    source: Source
    policy: ViewPolicy
    mixing: Mixing | None
    augmentation: Augmentation | None
    eval_crop: Crop
    objective: Objective
    metrics: dict[str, EvaluationMetric]  # in addition to the built-in metrics
    temperature: Temperature | None
    calibration: Calibrator | None
    lr_schedule: LrSchedule
    optimizer: Callable[..., torch.optim.Optimizer]
    identity: str  # of the config, as `kdx.config.identity.job_identity` defines it
    sharing: Sharing = field(default_factory=Sharing)  # with other runs that train at the same time in this process

    @property
    def teacher_is_stored(self) -> bool:
        """Whether the teacher's output per training image is constant, so that it is computed once and stored."""
        config = self.config
        fixed = self.policy.teacher_fixed and self.mixing is None and self.augmentation is None
        logits_only = not self.objective.teacher_features and not self.members_teach_separately
        return fixed and logits_only and config.data.teacher_view == "full"

    @property
    def members_teach_separately(self) -> bool:
        """Whether each member of the teacher has its own loss."""
        teacher = self.config.teacher
        return teacher is not None and teacher.members is not None and teacher.combine == "losses"

    @property
    def flip(self) -> bool:
        """Whether training images are mirrored with probability 0.5."""
        return self.source.flip if self.config.data.flip is None else self.config.data.flip

    @cached_property
    def num_classes(self) -> int:
        """The number of classes K: of the data set, the config, or the teacher's weights. ConfigError if unknown."""
        num_classes = getattr(self.source, "num_classes", None) or self.config.data.num_classes
        for member in self.config.members.values():
            if num_classes is None and (member.checkpoint is not None or member.architecture.get("pretrained")):
                from kdx.experiment.teacher_classes import own_classes

                num_classes = own_classes(member, 0)[0] or None
        if num_classes is None and self.source.labels:
            name = type(self.source).__name__
            raise ConfigError(f"Number of classes unknown: {name} has labels, but its num_classes is None; set it to N")
        if num_classes is None:
            raise ConfigError("Number of classes unknown for unlabeled data; set data.num_classes=N")
        return int(num_classes)

    @cached_property
    def probes(self) -> Probes:
        """All networks, built without weights and run once. ConfigError if one does not take images of its resolution."""
        from kdx.experiment.probe import probe_networks

        return probe_networks(self)


def observers(parts: Parts, num_classes: int) -> dict[str, Observer]:
    """Return the observer of each split; val has no teacher view, because the preflight already stores its logits on val."""
    config = parts.config
    resolution = Pair(config.resolution.teacher, config.student_resolution)
    resizing = Resizing(*config.interpolation.in_evaluation)
    still = SharedView(parts.eval_crop)
    has_teacher, others = config.teacher is not None, config.other_resolutions
    try:
        train = Observer(
            parts.policy,
            resolution,
            num_classes,
            mixing=parts.mixing,
            augmentation=parts.augmentation,
            flip=parts.flip,
            teacher=has_teacher and not parts.teacher_is_stored,
            student_resolutions=config.student_resolutions,
            resizing=Resizing(*config.interpolation.in_training),
            teacher_sees_students=config.data.teacher_view == "student",
            other_resolutions=others,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    val = Observer(still, resolution, num_classes, teacher=False, resizing=resizing)
    test = Observer(still, resolution, num_classes, teacher=has_teacher, resizing=resizing, other_resolutions=others)
    return {"train": train, "val": val, "test": test}


def objective(config: RunConfig) -> Objective:
    """Return the objective of a config. ConfigError if one of its losses is not a Term."""
    terms = {name: make(node, f"losses.{name}") for name, node in config.losses.items()}
    for name, term in terms.items():
        if not isinstance(term, Term):
            raise ConfigError(
                f"losses.{name} is a {type(term).__name__}, not a Term: "
                f"set {name}: {{_target_: kdx.losses.objective.Term, loss: {{_target_: {config.losses[name]['_target_']}}}}}"
            )
    try:
        return Objective(terms)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def unchecked(config: RunConfig) -> Parts:
    """Return the parts of a finished run without checking them; its data need not exist."""
    return Parts(
        config=config,
        source=make(config.data.source, "data.source"),
        policy=make(config.views, "views"),
        mixing=make(config.mixing, "mixing"),
        augmentation=make(config.augmentation, "augmentation"),
        eval_crop=make(config.data.eval_crop, "data.eval_crop"),
        objective=objective(config),
        temperature=make(config.temperature, "temperature"),
        calibration=make(config.calibration, "calibration"),
        lr_schedule=make(config.lr_schedule, "lr_schedule"),
        optimizer=make(optimizer_for_batch(config), "optimizer"),
        identity=job_identity(to_plain(config)),
        metrics={name: make(metric, f"metrics.{name}") for name, metric in config.metrics.items()},
    )


def parts(config: RunConfig, *, probed: bool = False) -> Parts:
    """Return the parts of a run, checked against each other before data is read, and `probed` networks, too.

    ConfigError ends with the remedy.
    """
    built = unchecked(config)
    try:
        built.optimizer([torch.nn.Parameter(torch.zeros(1, 1))])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {error}") from None
    observers(built, num_classes=2)
    check_terms(built)
    check_compile(built)
    check_devices(config)
    check_jpeg_px(config)
    if config.checkpoint is not None:
        built.config = config = resume.from_good_checkpoint(config, config.checkpoint)
    try:
        built.source.check()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    from kdx.experiment.channels import takes_channels, with_channels  # timm takes seconds: the rest was checked before

    if takes_channels(config):
        built.config = with_channels(config, built.source)
        built.source = make(built.config.data.source, "data.source")
    check_source(built)
    for name, term in built.objective.terms.items():
        if built.num_classes < term.loss.min_classes:
            raise ConfigError(f"losses.{name}: {term.loss.too_few_classes}")
    if probed:
        built.probes  # noqa: B018 - what they find is said before torchmetrics and Lightning are imported, which takes seconds
    import_torchmetrics()
    from kdx.experiment.metrics import check_metrics

    check_metrics(built)
    return built
