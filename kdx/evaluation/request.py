"""The request of kdx-evaluate, checked before torch is imported or any file is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len

from kdx.config.check import load
from kdx.config.errors import ConfigError
from kdx.config.plugins import check_targets
from kdx.config.requests import check_keys, typed
from kdx.config.schema import Interpolation, RunConfig
from kdx.data.source import SPLITS
from kdx.networks.names import check_architecture
from kdx.ranges import Count, Finite, Number, Positive, Resolution

NETWORK_KEYS = ("run", "student", "checkpoint", "timm", "file")  # each names what to evaluate
RUNTIMES = {".onnx": ("onnxruntime", "export"), ".pte": ("executorch", "executorch")}  # of files: package, extra of kdx
TIMM = "config.json", "model.safetensors"  # of a folder that timm loads
SEVERITIES = range(1, 6)
EvaluatedSplit = Literal["train", "val", "test", "all"]
FINISHED = "give the folder of a finished run"


@dataclass(frozen=True)
class EvaluationRequest:
    """The keys of conf/evaluate.yaml; the YAML file explains them."""

    run: str | None
    student: str | None
    checkpoint: str | None
    timm: str | None
    file: str | None
    network: dict[str, Any] | None
    weights: str | None
    key: str | None
    pretrained: bool | None
    mean: list[Finite] | None
    std: list[Positive] | None
    alone: bool
    split: EvaluatedSplit | None
    resolution: Resolution | Annotated[list[Resolution], Len(1)] | None
    interpolation: Interpolation | None
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
        """Whether to repeat exactly the evaluation at the end of a run."""
        how: list[Any] = [self.data, self.shift, self.resolution, self.interpolation, self.class_map, self.to, self.name]
        how += [self.batch_size, self.num_workers]
        return self.run is not None and self.split != "all" and not self.alone and not self.predictions and not any(how)

    @property
    def sides(self) -> list[int]:
        """The requested resolutions, px; empty for the native resolution of the network."""
        return [] if self.resolution is None else self.resolution if isinstance(self.resolution, list) else [self.resolution]

    @property
    def folder(self) -> Path | None:
        """The folder of the run that the network belongs to: `run`, or the run that contains the given file."""
        if self.run is not None:
            return Path(self.run)
        if self.file is not None:
            file = Path(self.file).absolute()
            return next((place for place in (file, *file.parents[:2]) if (place / "config.yaml").is_file()), None)
        if self.student is not None:
            parent = Path(self.student).absolute().parent
        elif self.checkpoint is not None and self.network is None:
            parent = Path(self.checkpoint).absolute().parent.parent
        else:
            return None
        return parent if (parent / "config.yaml").is_file() else None

    def split_of(self, run: RunConfig | None) -> EvaluatedSplit:
        """Return the split to evaluate: `split`, by default test; "all" is all images of the data set.

        Raises:
            ConfigError: If the default would be the test split of a run with test=false.
        """
        if self.split is None and self.data is None and run is not None and not run.test:
            raise ConfigError(
                "The run has test=false, so its test split is reserved: give split=val, or split=test to evaluate on it now"
            )
        return self.split or "test"


def run_of(request: EvaluationRequest) -> RunConfig | None:
    """Return the checked config of the run that the network belongs to; without its teacher for alone=true."""
    if request.folder is None:
        return None
    config = load(request.folder / "config.yaml")
    return replace(config, teacher=None, calibration=None) if request.alone else config


def request(plain: Mapping[str, Any]) -> EvaluationRequest:
    """Return the request in a composed config (conf/evaluate.yaml) as plain data.

    Raises:
        ConfigError: If the config is invalid; the message ends with the remedy.
    """
    check_keys(EvaluationRequest, plain)
    check_targets(dict(plain))
    for severity in plain["severities"] if isinstance(plain["severities"], list) else [plain["severities"]]:
        if severity not in SEVERITIES:
            raise ConfigError(f"Invalid severity {severity}; expected a subset of 1-5, such as severities=[1,3,5]")
    if plain["split"] not in (*SPLITS, "all", None):
        raise ConfigError(f"Invalid split={plain['split']}; expected train, val, test or all")
    validated = typed(EvaluationRequest, plain)
    _check_networks(validated, plain)
    _check_files(validated)
    _check_data(validated, plain)
    if validated.predictions and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("predictions=true requires pyarrow: pip install kdx[parquet], or give predictions=false")
    return validated


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless a folder has what timm loads."""
    if (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} is the folder of a run: give run={folder}")
    if not all((folder / name).is_file() for name in TIMM):
        raise ConfigError(
            f"{folder} has no {TIMM[0]} with {TIMM[1]}: export with format=[timm], or give one file, such as student.onnx"
        )


def _check_networks(request: EvaluationRequest, plain: Mapping[str, Any]) -> None:
    given = [name for name in NETWORK_KEYS if plain[name] is not None]
    if len(given) != 1:
        values = " and ".join(f"{name}={plain[name]}" for name in given)
        problem = f"Only one network can be evaluated, got {values}" if given else "Missing required option"
        forms = "run=FOLDER, student=FILE.safetensors, checkpoint=FILE, timm=NAME or file=FILE"
        raise ConfigError(f"{problem}: give one of {forms}")
    for name, required in {"network": "checkpoint", "weights": "timm", "pretrained": "timm"}.items():
        if plain.get(name) is not None and plain[required] is None:
            raise ConfigError(f"{name}= requires {required}=, got {given[0]}={plain[given[0]]}: remove {name}=")
    if request.key is not None and (request.checkpoint or request.weights) is None:
        raise ConfigError(f"key={request.key} requires a file with several networks: give checkpoint=FILE or weights=FILE")
    for name in ("mean", "std"):
        if plain.get(name) is not None and request.timm is None and request.network is None:
            raise ConfigError(f"{name}= has no effect on {given[0]}=, whose normalization is known: remove {name}=")
    if request.pretrained and request.weights:
        raise ConfigError("pretrained=true and weights=FILE exclude each other: remove weights=FILE, or give pretrained=false")
    if request.network is not None and request.network.get("architecture") == "???":
        raise ConfigError("Missing required option: network.architecture=NAME")
    architecture = request.timm or (request.network or {}).get("architecture")
    if architecture is not None:
        try:
            check_architecture(architecture)
        except ValueError as error:
            raise ConfigError(f"{'timm' if request.timm else 'network'}: {error}") from None


def _check_data(request: EvaluationRequest, plain: Mapping[str, Any]) -> None:
    given = next(f"{name}={plain[name]}" for name in NETWORK_KEYS if plain[name] is not None)
    if request.data is None and request.folder is None:
        raise ConfigError(f"{given} requires a data set: give data=GROUP, and data.root=FOLDER if the group needs it")
    if request.folder is None and request.to is None:
        raise ConfigError(f"{given} is not part of a run, so the results need a folder: give to=FOLDER")


def _check_files(request: EvaluationRequest) -> None:
    if request.run is not None and not (Path(request.run) / "config.yaml").is_file():
        raise ConfigError(f"run={request.run} has no config.yaml; {FINISHED}")
    for name in ("student", "checkpoint", "weights", "class_map"):
        value = getattr(request, name)
        if value is not None and not Path(value).is_file():
            raise ConfigError(f"{name}={value} does not exist; give the path of a file")
    if request.file is not None and not Path(request.file).exists():
        raise ConfigError(
            f"file={request.file} does not exist; give student.onnx, student.safetensors or the folder of an export"
        )
    if request.file is not None and Path(request.file).is_dir():
        check_folder(Path(request.file))
    package, extra = RUNTIMES.get(Path(request.file or "").suffix, (None, None))
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(f"file={request.file} requires {package}: pip install kdx[{extra}]")
    if request.student is not None and not Path(request.student).with_suffix(".json").is_file():
        raise ConfigError(
            f"student={request.student} has no {Path(request.student).with_suffix('.json').name} beside it: copy this file as "
            "well, or give checkpoint=FILE with network=OPTION"
        )
    if request.checkpoint is not None and request.folder is None and request.network is None:
        raise ConfigError(
            f"checkpoint={request.checkpoint} is not part of a run: give network=OPTION, or network=timm "
            "network.architecture=NAME"
        )
