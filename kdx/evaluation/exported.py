"""The network of an exported file, with the preprocessing, class names and calibration temperature that the file states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdx.config.cards import read_card
from kdx.config.errors import ConfigError
from kdx.evaluation.measured_networks import MeasuredNetworks, filter_of, network_of_card
from kdx.evaluation.request import TIMM, check_folder
from kdx.experiment import build
from kdx.networks.executorch_network import ExecutorchNetwork
from kdx.networks.file_network import FileNetwork
from kdx.networks.network import Network
from kdx.networks.onnx_network import OnnxNetwork
from kdx.networks.preprocessing import crop_of
from kdx.types import Pair
from kdx.views.crops import Crop
from kdx.views.render import Interpolation, Resizing

FORMS = "give student.onnx, student.pte, student.safetensors with its student.json, the folder of an export, or run=FOLDER"
GRAPHS: Mapping[str, Callable[[Path], FileNetwork]] = {".onnx": OnnxNetwork, ".pte": ExecutorchNetwork}


@dataclass(frozen=True)
class ExportedNetwork:
    """What an exported file states.

    `crop` is None if the file names none that kdx has; `temperature` calibrates the logits, None if none was fitted to them or
    if the file includes it.
    """

    file: Path
    network: Network | FileNetwork
    crop: Crop | None
    resolution: int  # px
    interpolation: Interpolation
    names: Sequence[str] | None
    temperature: float | None

    def measured(self) -> MeasuredNetworks:
        """Return it as the student of an evaluation."""
        return MeasuredNetworks(
            text=str(self.file),
            of={"file": str(self.file)},
            student=self.network,
            resolution=Pair(self.resolution, self.resolution),
            names=self.names,
            resizing=Resizing(self.interpolation, self.interpolation),
            crop=self.crop,
            temperature=self.temperature,
        )


def read_exported(file: Path) -> ExportedNetwork:
    """Return the network of an export: student.onnx or .pte, student.safetensors with its card, or a folder as timm reads it.

    Raises:
        ConfigError: If there is no such file, or if it cannot be read or was not written by kdx-export.
    """
    try:
        network, card = _read(file)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    words = card["pretrained_cfg"]
    return ExportedNetwork(
        file,
        network,
        build.make(crop_of(words), "crop"),
        words["input_size"][-1] if "input_size" in words else card["resolution"],
        filter_of(card),
        card.get("label_names"),
        None if card.get("calibration_temperature_folded") else card.get("calibration_temperature"),
    )


def _read(file: Path) -> tuple[Network | FileNetwork, dict[str, Any]]:
    if file.is_dir():
        return _of_folder(file)
    if not file.is_file():
        raise ConfigError(f"{file}: file not found; {FORMS}")
    if file.suffix in GRAPHS:
        network = GRAPHS[file.suffix](file)
        return network, network.card
    if file.suffix != ".safetensors":
        raise ConfigError(f"{file} is not an exported network: {FORMS}")
    card = read_card(file.with_suffix(".json"))
    return network_of_card(file, card), card


def _of_folder(folder: Path) -> tuple[Network, dict[str, Any]]:
    check_folder(folder)
    config, weights = (folder / name for name in TIMM)
    try:
        card = read_card(config)
    except ConfigError as error:
        cause = str(error).partition(": ")[0]
        raise ConfigError(
            f"{cause}: export it with kdx-export run=FOLDER format=[timm], or evaluate it with timm=local-dir:{folder}"
        ) from None
    return network_of_card(weights, card), card
