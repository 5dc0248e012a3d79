"""Write the files of each format into a folder and compare each with the trained student."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.export import onnx_file, student
from kdx.export.parity import LogitsFunction, compare, noise
from kdx.export.request import ExportRequest
from kdx.networks import weights
from kdx.networks.network import Network

CONFIG, MODEL = "config.json", "model.safetensors"  # names required by timm's `local-dir:`
FOLDED = "calibration_temperature_folded"  # key of the temperature that the files include; None: they do not
PLAIN, ONNX = "student.safetensors", "student.onnx"


@dataclass(frozen=True)
class Ready:
    """A student ready for export."""

    request: ExportRequest
    network: Network  # with the temperature folded into its last layer, if requested
    reference: LogitsFunction  # the trained student, with its logits divided by this temperature
    batches: list[Tensor]  # for the comparison

    @property
    def card(self) -> dict[str, Any]:
        """The content of the run's student.json, with the folded temperature."""
        return {**self.request.run.card, FOLDED: self.request.temperature}


def timm_folder(ready: Ready, folder: Path) -> dict[str, Any]:
    """Write config.json and model.safetensors for `timm.create_model("local-dir:FOLDER", pretrained=True)`.

    Returns:
        The parity report of `compare`.
    """
    card, network = ready.card, ready.network
    config = {
        **{name: card[name] for name in ("label_names", "calibration_temperature", FOLDED) if name in card},
        "architecture": _cfg(network)["architecture"],
        "num_classes": network.num_classes,
        "num_features": network.model.num_features,
        "model_args": card["model_args"],
        "pretrained_cfg": _pretrained_cfg(ready),
    }
    weights.save(network.model, config, folder / MODEL)
    (folder / MODEL).with_suffix(".json").replace(folder / CONFIG)
    args = {name: value for name, value in card["model_args"].items() if name not in ("num_classes", "in_chans")}
    loaded = Network(f"local-dir:{folder}", network.num_classes, network.in_channels, pretrained=True, args=args).eval()
    return compare("the timm folder", loaded, ready.reference, ready.batches)


def _cfg(network: Network) -> dict[str, Any]:
    """Return timm's pretrained_cfg of the architecture."""
    cfg: Any = network.model.pretrained_cfg
    return dict(cfg)


def _pretrained_cfg(ready: Ready) -> dict[str, Any]:
    timm_cfg = _cfg(ready.network)
    layers = {name: timm_cfg[name] for name in ("first_conv", "classifier") if timm_cfg.get(name)}
    return {
        **ready.card["pretrained_cfg"],
        **layers,
        "fixed_input_size": bool(timm_cfg.get("fixed_input_size", False)),
        "custom_load": False,
    }


def plain_file(ready: Ready, folder: Path) -> dict[str, Any]:
    """Write student.safetensors with timm's parameter names, and student.json; return the parity report."""
    weights.save(ready.network.model, ready.card, folder / PLAIN)
    return compare(PLAIN, student.build(ready.card, folder / PLAIN), ready.reference, ready.batches)


def onnx_graph(ready: Ready, folder: Path) -> dict[str, Any]:
    """Write student.onnx for any batch size at the student's resolution.

    Returns:
        "opset", "max_difference" of the logits, "levels" (a parity report per optimization level) and "latency".
    """
    run, network = ready.request.run, ready.network
    channels, side, _ = run.shape
    divided = f", divided by the calibration temperature {ready.request.temperature}" if ready.request.temperature else ""
    notes = {
        "kdx.input": f"images [batch,{channels},{side},{side}], float32 in [0,1]; the graph includes the normalization",
        "kdx.output": f"logits [batch,{network.num_classes}]{divided}; softmax gives probabilities",
        "kdx.architecture": network.architecture,
        "kdx.pretrained_cfg": json.dumps(ready.card["pretrained_cfg"]),
        "kdx.label_names": json.dumps(ready.card.get("label_names"), ensure_ascii=False),
        "kdx.calibration_temperature": json.dumps(ready.card["calibration_temperature"]),
        f"kdx.{FOLDED}": json.dumps(ready.card[FOLDED]),
        "kdx.run": f"{run.config.get('name')}/{run.path.resolve().name}",
    }
    opset = onnx_file.write(network, run.shape, folder / ONNX, ready.request.opset, notes)
    levels = {
        level: compare(f"{ONNX} at {level}", logits, ready.reference, ready.batches)
        for level, logits in onnx_file.sessions(folder / ONNX)
    }
    default = onnx_file.session(folder / ONNX)
    return {
        "opset": opset,
        "max_difference": max(one["max_difference"] for one in levels.values()),
        "levels": levels,
        "latency": onnx_file.latencies(default, network, run.shape),
    }


WRITERS: Mapping[str, Callable[[Ready, Path], dict[str, Any]]] = {
    "timm": timm_folder,
    "safetensors": plain_file,
    "onnx": onnx_graph,
}


def ready(request: ExportRequest) -> Ready:
    """Return the student of a request, with its calibration temperature folded in if requested."""
    trained = student.load(request.run)
    divisor = 1.0 if request.temperature is None else request.temperature
    network = trained if request.temperature is None else student.folded(trained, request.temperature)

    def reference(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return trained(images) / divisor

    return Ready(request, network, reference, noise(request.run.shape, request.batches))
