"""The config of a run: frozen dataclasses with one field per config group. YAML holds the defaults.

Annotations are the schema: the type for mypy and the valid range for pydantic. A leaf (`Node`) is a mapping with `_target_` and
the arguments of a constructor, whose signature is the leaf's schema. Hydra composes against `hydra_schema`, mutable versions of
these classes that OmegaConf can merge.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING as REQUIRED
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Len
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from kdx.config.baselines import Baseline
from kdx.config.run_names import register
from kdx.ranges import Count, Fraction, Number, Positive, Resolution, Seed, Text

AUTO = "auto"  # value of keys: as the folder, or the machine, says
Node = Mapping[str, Any]  # a leaf: `_target_` and the arguments of its constructor
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Interpolation = Literal["bilinear", "bicubic", "area", "bilinear_aliased", "bicubic_aliased"]


@dataclass(frozen=True, kw_only=True)
class ResolutionConfig:
    """Sides of the square images in px. With a list for the student, each batch draws one; the largest is used in tests."""

    teacher: Resolution
    student: Resolution | Annotated[list[Resolution], Len(1)]


@dataclass(frozen=True, kw_only=True)
class InterpolationConfig:
    """How each network's images are resized; conf/train.yaml explains the keys."""

    teacher: Interpolation
    student: Interpolation
    eval: Interpolation | None = None
    student_from: Literal["image", "teacher"] = "image"

    @property
    def in_training(self) -> tuple[Interpolation, Interpolation, bool]:
        """The filters of teacher and student in training, and whether the student's images are resized from the teacher's."""
        return self.teacher, self.student, self.student_from == "teacher"

    @property
    def in_evaluation(self) -> tuple[Interpolation, Interpolation, bool]:
        """The same on val and test."""
        return self.eval or self.teacher, self.eval or self.student, self.student_from == "teacher"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A data set and how it is split and loaded; conf/data/base.yaml explains the keys."""

    source: Node
    root: str | None = None
    download: bool = False
    num_classes: Count | None
    channels: Literal[1, 3] | None = None
    verify: bool = True
    check_duplicates: Literal["auto"] | bool = "auto"
    eval_crop: Node
    train_size: Count | None
    val_share: Fraction
    test_share: Fraction
    test_from: Literal["train", "val"] = "train"
    split_seed: Seed
    batch_size: Count
    loader: Literal["auto", "resident", "streamed"]
    num_workers: Number | Literal["auto"] = "auto"
    resident_budget_mb: Number
    cache: str | None = None
    shuffle_buffer: Count | None = None
    max_megapixels: Positive = 100.0
    jpeg_px: Resolution | None = None
    on_bad_image: Literal["raise", "skip"]
    teacher_view: Literal["full", "student"]
    flip: bool | None = None


@dataclass(frozen=True, kw_only=True)
class MemberConfig:
    """A network and the origin of its weights; conf/teacher/online.yaml explains the keys."""

    network: Node | None = None
    checkpoint: str | None = None
    key: str | None = None
    recipe: Node | None = None
    run: str | None = None
    resolution: Resolution | None = None
    class_map: str | None = None
    precision: Precision | None = None
    finetune: bool = False

    @property
    def architecture(self) -> Node:
        """The node of the network, which `check` guarantees."""
        assert self.network is not None
        return self.network


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(MemberConfig):
    """One network, or members and how their outputs are combined; conf/teacher/ensemble.yaml explains the keys."""

    members: dict[str, MemberConfig] | None = None
    combine: Literal["logits", "probs", "losses"] = "logits"


@dataclass(frozen=True, kw_only=True)
class PeersConfig:
    """The other students of a cohort; conf/peers/dml.yaml explains the keys."""

    members: dict[str, Node]
    combine: Literal["probs", "losses"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run depends on: one field per config group, plus the plain values."""

    name: Text
    seed: Seed
    tags: list[str]
    outputs: Text
    resolution: ResolutionConfig
    data: DataConfig
    views: Node
    mixing: Node | None = None
    augmentation: Node | None = None
    interpolation: InterpolationConfig
    student: Node
    teacher: TeacherConfig | None = None
    peers: PeersConfig | None = None
    calibration: Node | None = None
    temperature: Node | None = None
    losses: dict[str, Node]
    metrics: dict[str, Node] = field(default_factory=dict)
    optimizer: Node
    decay: Literal["kernels", "all"]
    lr_batch_size: Count | None = None
    trainable: Literal["all", "head"] = "all"
    lr_schedule: Node
    trainer: Node
    callbacks: dict[str, Node] | None = None
    logger: dict[str, Node] | None = None
    monitor: str
    monitor_mode: Literal["min", "max"]
    selection: Literal["last", "best_val", "ema"]
    baseline: Baseline | None = None
    baselines: list[Baseline] = field(default_factory=list)
    measured: str | None = None
    test: bool
    preflight: Literal["strict", "warn", "off"] = "strict"
    rehearsal: bool = False
    speed: Literal["safe", "exact", "max"] = "safe"
    compile: Literal["teacher", "both"] | None = None
    teacher_cache: str | None = None
    teacher_cache_bits: Literal[16, 32] = 16
    ckpt_path: str | None = AUTO
    on_conflict: Literal["refuse", "fork"] = "refuse"
    sweep: Text = AUTO
    max_attempts: Count = 3

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that `ckpt_path` names; None if it names none, or leaves it to the run's folder."""
        return None if self.ckpt_path in (None, AUTO) else Path(str(self.ckpt_path))

    @cached_property
    def student_resolutions(self) -> list[int]:
        """The resolutions in px of the student in training."""
        student = self.resolution.student
        return list(student) if isinstance(student, list) else [student]

    @property
    def student_resolution(self) -> int:
        """The resolution in px at which the student is tested: its largest."""
        return max(self.student_resolutions)

    @cached_property
    def members(self) -> Mapping[str, MemberConfig]:
        """The members of the teacher by config path: "teacher" itself, or those of an ensemble; empty without a teacher."""
        if self.teacher is None:
            return {}
        if self.teacher.members is None:
            return {"teacher": self.teacher}
        return {f"teacher.members.{name}": member for name, member in self.teacher.members.items()}

    @property
    def is_ensemble(self) -> bool:
        """Whether the teacher has several members."""
        return self.teacher is not None and self.teacher.members is not None

    @cached_property
    def other_resolutions(self) -> list[int]:
        """The input resolutions in px of ensemble members, without `resolution.teacher`."""
        sides = {member.resolution for member in self.members.values() if member.resolution is not None}
        return sorted(sides - {self.resolution.teacher})


def to_plain(value: Any) -> Any:
    """Return a config as dicts, lists and plain values, in the order of the fields, as in config.yaml."""
    if is_dataclass(value):
        return {item.name: to_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list) else value


@cache
def hydra_schema(config: type) -> type:
    """Return a mutable version of a frozen config class that OmegaConf can merge; required fields are MISSING ("???")."""
    hints = get_type_hints(config, include_extras=True)
    items = []
    for item in fields(config):
        default = MISSING if item.default is REQUIRED else item.default
        kind = _mergeable(hints[item.name])
        if isinstance(kind, type) and is_dataclass(kind):
            items.append((item.name, kind, field(default_factory=kind)))
        elif item.default_factory is not REQUIRED:
            items.append((item.name, kind, field(default_factory=item.default_factory)))
        else:
            items.append((item.name, kind, field(default=default)))
    name = f"Mergeable{config.__name__}"
    made = globals()[name] = make_dataclass(name, items, namespace={"__module__": __name__})  # found by name in other processes
    return made


def _mergeable(hint: Any) -> Any:
    """Return the type that OmegaConf checks for an annotation; Any if only pydantic can check it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return hydra_schema(hint)
    if origin is Annotated:
        return _mergeable(arguments[0])
    if origin is Literal:
        return type(arguments[0])
    if origin is Mapping:
        return dict[str, Any]
    if origin is dict:
        return dict[str, Any] if arguments[1] == Node else dict[str, _mergeable(arguments[1])]  # type: ignore[misc]  # at run time
    if origin in (Union, types.UnionType):
        kinds = [_mergeable(kind) for kind in arguments if kind is not type(None)]
        return (kinds[0] | None if len(kinds) < len(arguments) else kinds[0]) if len(kinds) == 1 else Any
    return list[Any] if origin is list else hint


register()
ConfigStore.instance().store("schema", hydra_schema(RunConfig))
