"""What kdx-evaluate was asked for, checked before torch is imported or anything is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from kdx.config.check import ConfigError, check, unknown
from kdx.data.source import SplitName
from kdx.networks.names import check_architecture
from kdx.ranges import Count, Finite, Number, Positive, Resolution, explain

SUBJECTS = ("run", "student", "checkpoint", "timm")
SEVERITIES = range(1, 6)
FINISHED = "give the folder of a finished run"


@dataclass(frozen=True)
class EvaluationRequest:
    """The keys of conf/evaluate.yaml, which explains them."""

    run: str | None
    student: str | None
    checkpoint: str | None
    timm: str | None
    network: dict[str, Any] | None
    weights: str | None
    pretrained: bool | None
    mean: list[Finite] | None
    std: list[Positive] | None
    alone: bool
    split: Literal["train", "val", "test"] | None
    resolution: Resolution | Annotated[list[Resolution], Len(1)] | None
    interpolation: Literal["bilinear", "bicubic", "area"] | None
    severities: list[int]
    seed: Number
    class_map: str | None
    predictions: bool
    to: str | None
    name: str | None
    batch_size: Count | None
    num_workers: Number | None
    data: dict[str, Any] | None
    shift: dict[str, Any] | None

    @property
    def again(self) -> bool:
        """Whether all that is asked for is the numbers of a run, as the run measured them."""
        how: list[Any] = [self.data, self.shift, self.resolution, self.interpolation, self.class_map, self.to, self.name]
        how += [self.batch_size, self.num_workers]
        return self.run is not None and not self.alone and not self.predictions and not any(how)

    @property
    def sides(self) -> list[int]:
        """The resolutions asked for, px; none where the network's own is meant."""
        return [] if self.resolution is None else self.resolution if isinstance(self.resolution, list) else [self.resolution]

    @property
    def folder(self) -> Path | None:
        """The run that the network belongs to: named, or around the file that was named."""
        if self.run is not None:
            return Path(self.run)
        if self.student is not None:
            around = Path(self.student).absolute().parent
        elif self.checkpoint is not None and self.network is None:
            around = Path(self.checkpoint).absolute().parent.parent
        else:
            return None
        return around if (around / "config.yaml").is_file() else None

    def split_of(self, run: DictConfig | None) -> SplitName:
        """The split to measure; ConfigError where it would be test by default and the run keeps its test for later."""
        if self.split is None and self.data is None and run is not None and not run.test:
            raise ConfigError(
                "the run has test=false, so its test images are kept: give split=val, or split=test to use them now"
            )
        return self.split or "test"


def run_of(asked: EvaluationRequest) -> DictConfig | None:
    """The checked config of the run that the network belongs to, without its teacher if nobody asks for that."""
    if asked.folder is None:
        return None
    loaded = OmegaConf.load(asked.folder / "config.yaml")
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{asked.folder / 'config.yaml'} is no config: {FINISHED}")
    if asked.alone:
        loaded.teacher = loaded.calibration = None
    return check(loaded)


def request(cfg: DictConfig) -> EvaluationRequest:
    """The request in a composed config. ConfigError names the mistake and the remedy."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    known = [item.name for item in fields(EvaluationRequest)]
    for key in plain:
        if key not in known:
            raise ConfigError(unknown(key, known))
    for severity in plain["severities"] if isinstance(plain["severities"], list) else [plain["severities"]]:
        if severity not in SEVERITIES:
            raise ConfigError(f"Invalid severity {severity}; expected a subset of 1-5, like severities=[1,3,5]")
    if plain["split"] not in ("train", "val", "test", None):
        raise ConfigError(f"split={plain['split']}: choose train, val or test")
    try:
        found = TypeAdapter(EvaluationRequest).validate_python({name: plain.get(name) for name in known})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    _one_subject(found, plain)
    _files(found)
    if found.predictions and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "predictions are written by pyarrow, which is not installed: pip install kdx[parquet], or predictions=false"
        )
    return found


def _one_subject(asked: EvaluationRequest, plain: Mapping[str, Any]) -> None:
    named = [name for name in SUBJECTS if plain[name] is not None]
    if len(named) != 1:
        said = "nothing" if not named else " and ".join(f"{name}={plain[name]}" for name in named)
        raise ConfigError(
            f"there is {said} to measure: give one of run=FOLDER, student=FILE.safetensors, checkpoint=FILE or timm=NAME"
        )
    for name, owner in {"network": "checkpoint", "weights": "timm", "pretrained": "timm"}.items():
        if plain.get(name) is not None and plain[owner] is None:
            raise ConfigError(f"{name} goes with {owner}=, and there is {named[0]}={plain[named[0]]}: drop it")
    if asked.pretrained and asked.weights:
        raise ConfigError("the network gets its weights from one place: drop weights=FILE, or give pretrained=false")
    if asked.network is not None and asked.network.get("architecture") == "???":
        raise ConfigError("Missing required option: network.architecture=NAME")
    architecture = asked.timm or (asked.network or {}).get("architecture")
    if architecture is not None:
        try:
            check_architecture(architecture)
        except ValueError as error:
            raise ConfigError(f"{'timm' if asked.timm else 'network'}: {error}") from None
    if asked.data is None and asked.folder is None:
        raise ConfigError(
            f"{named[0]}={plain[named[0]]} comes without data: give data=GROUP, and data.root=FOLDER where it needs one"
        )
    if asked.folder is None and asked.to is None:
        raise ConfigError(f"{named[0]}={plain[named[0]]} belongs to no run whose folder could take the results: give to=FOLDER")


def _files(asked: EvaluationRequest) -> None:
    if asked.run is not None and not (Path(asked.run) / "config.yaml").is_file():
        raise ConfigError(f"run={asked.run}: there is no config.yaml; {FINISHED}")
    for name in ("student", "checkpoint", "weights", "class_map"):
        value = getattr(asked, name)
        if value is not None and not Path(value).is_file():
            raise ConfigError(f"{name}={value}: there is no such file; give a path that exists")
    if asked.student is not None and not Path(asked.student).with_suffix(".json").is_file():
        raise ConfigError(
            f"student={asked.student} has no card, {Path(asked.student).with_suffix('.json').name}, beside it: copy that "
            "too, or give checkpoint=FILE with network=OPTION"
        )
    if asked.checkpoint is not None and asked.folder is None and asked.network is None:
        raise ConfigError(
            f"checkpoint={asked.checkpoint} lies in no run: give network=OPTION, or network=timm network.architecture=NAME"
        )
