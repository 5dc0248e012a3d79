"""The request of kdx-export, checked before torch is imported or any file is written."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdx.config.errors import ConfigError, nearest
from kdx.export.finished import FITTED, FinishedRun, read
from kdx.ranges import Count

ONNX, EXECUTORCH = ("onnx", "onnxscript", "onnxruntime"), ("executorch", "torchao")
NEEDS: dict[str, tuple[str, ...]] = {
    "timm": (),
    "safetensors": (),
    "onnx": ONNX,
    "onnx_int8": ONNX,
    "executorch": EXECUTORCH,
    "executorch_int8": EXECUTORCH,
}
EXTRAS = {ONNX: "export", EXECUTORCH: "executorch"}  # what installs these packages
FEWEST = 10  # images from which the ranges of the activations are taken
OLDEST = 18  # the oldest opset that PyTorch's exporter writes
LEDGER = "export.json"


class Options(BaseModel):
    """The options in conf/export.yaml."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    run: str
    format: Annotated[list[str], Len(1)]
    to: str | None
    fold_temperature: bool
    opset: Annotated[int, Field(ge=OLDEST)] | None
    batches: Annotated[list[Count], Len(1)]
    quantization_images: Annotated[int, Field(ge=FEWEST)]
    push: str | None
    private: bool


@dataclass(frozen=True)
class ExportRequest:
    """A checked export of a finished run."""

    run: FinishedRun
    formats: tuple[str, ...]
    to: Path
    temperature: float | None  # divides the logits in every file; None: logits are unchanged
    opset: int | None
    batches: tuple[int, ...]  # batch sizes of the comparison
    quantization_images: int  # of train, for int8
    push: str | None = None  # USER/NAME on the Hugging Face hub
    private: bool = True  # a repository that is created there


def requested(values: dict[str, Any]) -> ExportRequest:
    """Return the request with the options in `values` (conf/export.yaml).

    Raises:
        ConfigError: If an option is invalid; the message ends with the remedy.
    """
    if values["run"] == "???":
        raise ConfigError("Missing required option: run=FOLDER, the folder of a finished run")
    if isinstance(values["format"], str):
        values = {**values, "format": [values["format"]]}
    try:
        options = Options.model_validate(values)
        formats = tuple(dict.fromkeys(options.format))
        _check_formats(formats)
        run = read(options.run)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise ConfigError(f"{key}={values[key]}: {first['msg']}; see conf/export.yaml") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    to = Path(options.to).expanduser() if options.to is not None else run.path / "export"
    check_target(to)
    temperature = _temperature(run) if options.fold_temperature else None
    if options.push is not None:
        _check_push(options.push, formats)
    batches, images = tuple(options.batches), options.quantization_images
    return ExportRequest(run, formats, to, temperature, options.opset, batches, images, options.push, options.private)


def _check_push(name: str, formats: tuple[str, ...]) -> None:
    """Raise ConfigError unless an export in these formats could be uploaded as `name`, as far as this machine knows."""
    from huggingface_hub import constants, get_token

    from kdx.run import hub

    if not hub.is_name(name):
        short = hub.repository(name)
        hint = f": push={short}" if short != name and hub.is_name(short) else ", such as push=me/my-student"
        raise ConfigError(
            f"push={name} is not a name on the hub; expected USER/NAME of letters, digits, '-', '_' and '.'{hint}"
        )
    if "timm" not in formats:
        raise ConfigError(
            f"push={name} requires the format that timm loads from the hub: format=[{','.join(('timm', *formats))}]"
        )
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"push={name} requires a connection, but HF_HUB_OFFLINE is set: unset it, or leave out push")
    if get_token() is None:
        raise ConfigError(f"push={name} requires a token with permission to write: {hub.LOG_IN}")


def _check_formats(formats: tuple[str, ...]) -> None:
    for name in formats:
        if name not in NEEDS:
            hint = nearest(name, list(NEEDS))
            raise ConfigError(f"Unknown format '{name}'.{hint} Available: {', '.join(NEEDS)}")
        absent = [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]
        if absent:
            pip = f"pip install kdx[{EXTRAS[NEEDS[name]]}]"
            others = ",".join(other for other, packages in NEEDS.items() if not packages)
            raise ConfigError(f"format={name} requires {absent[0]}: {pip}, or give format=[{others}]")


def _temperature(run: FinishedRun) -> float:
    fitted = run.calibration_temperature
    if fitted is None:
        raise ConfigError(
            f"fold_temperature=true: metrics.json has no {FITTED}, the fitted temperature; rerun the run with this version of "
            "kdx, or give fold_temperature=false"
        )
    return fitted


def check_target(to: Path) -> None:
    """Check that `to` does not exist, is empty, or contains only an earlier export.

    Raises:
        ConfigError: Otherwise.
    """
    if to.is_dir():
        foreign = sorted({path.name for path in to.iterdir()} - _exported(to))
        if foreign:
            raise ConfigError(
                f"to={to} contains {foreign[0]}, which is not part of an export; give an empty folder or a new one"
            )
    elif to.exists() or to.is_symlink():
        raise ConfigError(f"to={to} is a file: give a folder")


def _exported(to: Path) -> set[str]:
    """Return the names of the files that an earlier export wrote into `to`."""
    try:
        return {LEDGER, *json.loads((to / LEDGER).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
