"""A network in an ONNX file that kdx-export has written."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.networks.file_network import FileNetwork, card_of, first_line

REMEDY = "export it again with kdx-export run=FOLDER format=[onnx]"


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
        raise ValueError(f"onnxruntime {onnxruntime.__version__} cannot load {file} ({first_line(error)})") from error


class OnnxNetwork(FileNetwork):
    """Runs an ONNX file by onnxruntime on the CPU.

    Raises:
        ValueError: onnxruntime is missing, cannot load or run the file, or the file was not written by kdx-export.
    """

    def __init__(self, file: Path) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise ValueError(f"{file} needs onnxruntime: pip install kdx[export]")
        try:
            session = open_session(file)
        except ValueError as error:
            raise ValueError(f"{error}: {REMEDY}") from error
        notes = session.get_modelmeta().custom_metadata_map
        card = card_of(lambda key: notes.get(f"kdx.{key}"), file, "onnx")
        (put,), (got,) = session.get_inputs(), session.get_outputs()
        super().__init__(file, card, int(got.shape[-1]))
        self.session, self.names = session, (put.name, got.name)

    def forward(self, images: Tensor) -> Tensor:
        put, got = self.names
        try:
            logits: Any = self.session.run([got], {put: images.cpu().numpy()})[0]
        except Exception as error:  # as in `open_session`
            raise ValueError(f"onnxruntime cannot run {self.file} ({first_line(error)}): {REMEDY}") from error
        return torch.from_numpy(logits).to(images.device)
