"""A network in an ONNX file that kdx-export has written."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

KEYS = ("pretrained_cfg", "label_names", "calibration_temperature", "calibration_temperature_folded")


def open_session(file: Path, level: str = "ORT_ENABLE_ALL") -> Any:
    """Return onnxruntime's session of a file on the CPU, with as many threads as torch has. ValueError if it cannot load it."""
    onnxruntime = importlib.import_module("onnxruntime")  # an optional dependency without type annotations
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own types, which it does not document
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"onnxruntime {onnxruntime.__version__} cannot load {file} ({first})") from error


class OnnxNetwork(nn.Module):
    """Maps images [B,C,R,R] in [0,1] to logits [B,K] by onnxruntime on the CPU. `card` is what the file says of itself.

    Raises:
        ValueError: onnxruntime is missing, cannot load the file, or the file was not written by kdx-export.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        if importlib.util.find_spec("onnxruntime") is None:
            raise ValueError(f"{file} needs onnxruntime: pip install kdx[export]")
        self.session = open_session(file)
        notes = self.session.get_modelmeta().custom_metadata_map
        self.card: dict[str, Any] = {key: json.loads(notes.get(f"kdx.{key}", "null")) for key in KEYS}
        if not self.card["pretrained_cfg"]:
            raise ValueError(f"{file} has no metadata of kdx: export it with kdx-export run=FOLDER format=[onnx]")
        self.in_channels = int(self.card["pretrained_cfg"]["input_size"][0])
        (self.input,), (self.output,) = self.session.get_inputs(), self.session.get_outputs()

    def forward(self, images: Tensor) -> Tensor:
        logits: Any = self.session.run([self.output.name], {self.input.name: images.numpy()})[0]
        return torch.from_numpy(logits)
