"""Write the files of each format into a folder and compare each with the trained student."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kdx.export import executorch_file, int8, onnx_file, student
from kdx.export.onnx_file import ONNX
from kdx.export.parity import compare
from kdx.export.ready import FOLDED, Ready
from kdx.networks import weights
from kdx.networks.network import Network

CONFIG, MODEL = "config.json", "model.safetensors"  # names required by timm's `local-dir:`
PLAIN = "student.safetensors"


def timm_folder(ready: Ready, folder: Path) -> dict[str, Any]:
    """Write config.json and model.safetensors for `timm.create_model("local-dir:FOLDER", pretrained=True)`.

    Returns:
        The parity report of `compare`.
    """
    card, network = ready.card, ready.network
    config = {
        **{name: card[name] for name in ("label_names", "interpolation", "calibration_temperature", FOLDED) if name in card},
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
    opset = onnx_file.write(network, run.shape, folder / ONNX, ready.request.opset, onnx_file.prefixed(ready.notes))
    levels = {
        level: compare(f"{ONNX} at {level}", logits, ready.reference, ready.batches)
        for level, logits in onnx_file.sessions(folder / ONNX)
    }
    default = onnx_file.session(folder / ONNX)
    return {
        "opset": opset,
        "max_difference": max(one["max_difference"] for one in levels.values()),
        "levels": levels,
        "latency": onnx_file.latencies({"onnxruntime": default, "pytorch": network}, run.shape),
    }


WRITERS: Mapping[str, Callable[[Ready, Path], dict[str, Any]]] = {
    "timm": timm_folder,
    "safetensors": plain_file,
    "onnx": onnx_graph,
    "executorch": executorch_file.graph,
    **{name: partial(int8.write, runtime) for name, runtime in int8.RUNTIMES.items()},
}
