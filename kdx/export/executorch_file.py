"""Write a .pte file for ExecuTorch with the XNNPACK backend, in float32 or int8."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdx.export import onnx_file
from kdx.export.parity import ExportError, compare
from kdx.export.ready import Ready
from kdx.networks.executorch_network import NOTES, ExecutorchNetwork
from kdx.networks.file_network import first_line
from kdx.run.quiet import quiet

PTE, PTE_INT8 = "student.pte", "student_int8.pte"
NOISY = ("torch.export", "torch.fx", "torch.utils._pytree", "executorch", "torchao", "root")  # loggers
REMEDY = "export without executorch: format=[timm,safetensors,onnx]"


class Divided(nn.Module):
    """Divides the logits of a network by a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) / self.temperature


def lower(network: nn.Module, ready: Ready, to: Path) -> None:
    """Write the network, which maps one image [1,C,R,R] in [0,1] to logits, with the notes as a method that returns JSON.

    Raises:
        ExportError: If PyTorch or ExecuTorch cannot export the network.
    """
    with quiet(*NOISY):
        exir = importlib.import_module("executorch.exir")
        partitioner = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        channels, side, _ = ready.request.run.shape
        notes = ready.notes | {"input": f"images [1,{channels},{side},{side}], float32 in [0,1]; includes the normalization"}
        try:
            program = torch.export.export(network, (_image(ready),))
            edge = exir.to_edge_transform_and_lower(
                program, partitioner=[partitioner.XnnpackPartitioner()], constant_methods={NOTES: json.dumps(notes)}
            )
            to.write_bytes(edge.to_executorch().buffer)
        except Exception as error:  # it raises many types; the user gets one sentence
            raise ExportError(f"ExecuTorch cannot export this network ({first_line(error)}): {REMEDY}") from error


def _image(ready: Ready) -> Tensor:
    return torch.rand(1, *ready.request.run.shape, generator=torch.Generator().manual_seed(0))


def write_fp32(ready: Ready, to: Path) -> None:
    """Write the trained student."""
    lower(ready.trained, ready, to)


def quantized(ready: Ready, fp32: Path, batches: Iterator[Tensor]) -> Callable[[Ready, Path], None]:
    """Return a function that writes the int8 version with other notes, divided by the temperature that these include.

    Weights are symmetric with a scale per channel, activations have one from the images, by the quantizer of XNNPACK.
    """
    with quiet(*NOISY):
        pt2e = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        xnnpack = importlib.import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
        config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
        try:
            graph: Any = torch.export.export(ready.trained, (_image(ready),)).module()
            observed = pt2e.prepare_pt2e(graph, xnnpack.XNNPACKQuantizer().set_global(config))
            with torch.no_grad():
                for images in batches:
                    for image in images:
                        observed(image[None])
            rounded = pt2e.convert_pt2e(observed)
        except Exception as error:  # as in `lower`
            raise ExportError(f"ExecuTorch cannot quantize this network ({first_line(error)}): {REMEDY}") from error

    def write(own: Ready, to: Path) -> None:
        lower(rounded if own.divisor is None else Divided(rounded, own.divisor), own, to)

    return write


def graph(ready: Ready, folder: Path) -> dict[str, Any]:
    """Write student.pte for one image at a time; return the parity report and the latency."""
    lower(ready.network, ready, folder / PTE)
    loaded = ExecutorchNetwork(folder / PTE)
    report = compare(PTE, loaded, ready.reference, ready.batches)
    latency = onnx_file.latencies({"executorch": loaded, "pytorch": ready.network}, ready.request.run.shape)
    latency["protocol"] += "; ExecuTorch has the threads that it chooses"
    return {**report, "latency": latency}
