"""The typed spine of a run: one field per config group, plus the plain values. YAML holds the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Len
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from kdx.config.baselines import Baseline
from kdx.ranges import Count, Fraction, Number, Resolution

Node = dict[str, Any]  # a leaf: `_target_` and the arguments of its constructor


def ranged(annotation: Any, default: Any = MISSING) -> Any:
    """A field whose value must fit `annotation`; YAML gives the default where none stands here."""
    return field(default=default, metadata={"range": annotation})


@dataclass
class ResolutionConfig:
    """Sides of the square images in px; several for the student are drawn from, batch by batch, and the largest is tested."""

    teacher: int = ranged(Resolution)
    student: Any = ranged(Resolution | Annotated[list[Resolution], Len(1)])  # noqa: RUF009 - a field, no value


@dataclass
class InterpolationConfig:
    """How each network's images are resized."""

    teacher: str = ranged(Literal["bilinear", "bicubic", "area"])
    student: str = ranged(Literal["bilinear", "bicubic", "area"])


@dataclass
class DataConfig:
    """A data set and how it is split and loaded; conf/data/base.yaml explains the keys."""

    source: Node = MISSING
    root: str | None = None
    download: bool = False
    num_classes: int | None = ranged(Count | None)
    eval_crop: Node = MISSING
    train_size: int | None = ranged(Count | None)
    val_share: float = ranged(Fraction)
    test_share: float = ranged(Fraction)
    split_seed: int = ranged(Number)
    batch_size: int = ranged(Count)
    loader: str = ranged(Literal["auto", "resident", "streamed"])
    num_workers: int = ranged(Number)
    resident_budget_mb: int = ranged(Number)
    cache: str | None = None
    on_bad_image: str = ranged(Literal["raise", "skip"])
    teacher_view: str = ranged(Literal["full", "student"])
    flip: bool | None = None


@dataclass
class MemberConfig:
    """A network and where its weights come from; conf/teacher/online.yaml explains the keys."""

    network: Node | None = None
    checkpoint: str | None = None
    recipe: Node | None = None
    run: str | None = None
    resolution: int | None = ranged(Resolution | None, None)


@dataclass
class TeacherConfig(MemberConfig):
    """One network, or members and how they are combined; conf/teacher/ensemble.yaml explains the keys."""

    members: dict[str, MemberConfig] | None = None
    combine: str = ranged(Literal["logits", "probs", "losses"], "logits")


@dataclass
class PeersConfig:
    """The other students of a cohort; conf/peers/dml.yaml explains the keys."""

    members: dict[str, Any] = MISSING
    combine: str = ranged(Literal["probs", "losses"])


@dataclass
class RunConfig:
    """Everything a run depends on: one field per config group, plus the plain values. YAML holds the defaults."""

    name: str = MISSING
    seed: int = ranged(Number)
    tags: list[str] = MISSING
    outputs: str = MISSING
    resolution: ResolutionConfig = field(default_factory=ResolutionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: Node = MISSING
    mixing: Node | None = None
    augmentation: Node | None = None
    interpolation: InterpolationConfig = field(default_factory=InterpolationConfig)
    student: Node = MISSING
    teacher: TeacherConfig | None = None
    peers: PeersConfig | None = None
    calibration: Node | None = None
    temperature: Node | None = None
    losses: dict[str, Any] = MISSING
    metrics: dict[str, Any] = field(default_factory=dict)
    optimizer: Node = MISSING
    decay: str = ranged(Literal["kernels", "all"])
    lr_schedule: Node = MISSING
    trainer: Node = MISSING
    callbacks: dict[str, Any] | None = None
    logger: dict[str, Any] | None = None
    monitor: str = MISSING
    monitor_mode: str = ranged(Literal["min", "max"])
    selection: str = ranged(Literal["last", "best_val", "ema"])
    baseline: str | None = ranged(Baseline | None, None)
    baselines: list[str] = field(default_factory=list, metadata={"range": list[Baseline]})
    test: bool = MISSING
    ckpt_path: str | None = None


ConfigStore.instance().store("schema", RunConfig)
NESTED = {
    "resolution": ResolutionConfig,
    "interpolation": InterpolationConfig,
    "data": DataConfig,
    "teacher": TeacherConfig,
    "peers": PeersConfig,
}
