"""Write and run an ONNX file that maps images in [0,1] to logits, correct in onnxruntime with default options."""

from __future__ import annotations

import copy
import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdx.costs import latency
from kdx.export.parity import ExportError, LogitsFunction
from kdx.networks.onnx_network import open_session
from kdx.run.quiet import quiet

ONNX = "student.onnx"
INPUT, OUTPUT = "images", "logits"
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")  # loggers of the exporter
REMEDY = "give another opset=, or export without ONNX: format=[timm,safetensors]"
_NO_FUNCTION = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_UNTRANSLATED = re.compile(r"target=torch\.ops\.([\w.]+?)(?:\.default)?\]")


class Border(nn.Module):
    """`nn.ConstantPad2d` implemented by concatenation.

    onnxruntime (up to at least 1.31) fuses a Pad with the MaxPool after it and then pads with minus infinity instead of zero.
    BiT's stem has this pair of layers; its logits were off by 2 % at every optimization level. Concat is not fused.
    """

    def __init__(self, pad: nn.ConstantPad2d) -> None:
        super().__init__()
        self.padding, self.value = pad.padding, pad.value

    def forward(self, images: Tensor) -> Tensor:
        left, right, top, bottom = self.padding
        row = torch.full_like(images[:, :, :1], self.value)
        images = torch.cat([row] * top + [images] + [row] * bottom, 2)
        column = torch.full_like(images[:, :, :, :1], self.value)
        return torch.cat([column] * left + [images] + [column] * right, 3)


def unfusable(network: nn.Module) -> nn.Module:
    """Return a copy of the network that computes the same without Pad operators, which onnxruntime could fuse wrongly."""
    copied = copy.deepcopy(network)
    pads = [(name, module) for name, module in copied.named_modules() if isinstance(module, nn.ConstantPad2d)]
    for name, module in pads:
        if name and min(module.padding) >= 0:
            copied.set_submodule(name, Border(module))
    return copied


def write(
    network: nn.Module,
    shape: tuple[int, int, int],
    path: Path,
    opset: int | None = None,
    notes: Mapping[str, str] | None = None,
) -> int:
    """Write the network as an ONNX file for any batch size.

    Args:
        network: Maps images [B,C,R,R] in [0,1] to logits [B,K].
        shape: (C, R, R).
        path: The file.
        opset: The ONNX opset; None for the exporter's default.
        notes: Metadata of the file.

    Returns:
        The opset of the file.

    Raises:
        ExportError: If ONNX does not support an operator of the network, or if the opset cannot be written.
    """
    chosen = {} if opset is None else {"opset_version": opset}
    with quiet(*NOISY):
        try:
            program = torch.onnx.export(
                unfusable(network).eval(),
                (torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)),),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                **chosen,  # type: ignore[arg-type]  # mypy checks it against all other parameters
            )
        except Exception as error:  # the exporter raises many types; the user gets one sentence
            raise ExportError(_explain(error, opset)) from error
        assert program is not None
        model: Any = program.model
        written = int(model.opset_imports[""])
        if opset not in (None, written):
            raise ExportError(f"opset={opset} is not supported for this network, only opset {written}: give opset=null")
        model.metadata_props.update(notes or {})
        program.save(path, external_data=False)
    return written


def _explain(error: BaseException, opset: int | None) -> str:
    message = str(error)
    operator = _NO_FUNCTION.search(message) or _UNTRANSLATED.search(message)
    if operator:
        return f"ONNX does not support the operator {operator[1]} of this network: {REMEDY}"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return f"PyTorch cannot export this network{f' with opset={opset}' if opset else ''} ({first}): {REMEDY}"


def prefixed(notes: Mapping[str, str]) -> dict[str, str]:
    """Return notes under the names that they have in the metadata of an ONNX file."""
    return {f"kdx.{name}": text for name, text in notes.items()}


def annotate(path: Path, notes: Mapping[str, str], divisor: float | None = None) -> None:
    """Replace the metadata of an ONNX file, and divide its logits by `divisor`, if given."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(path)
    graph = model.graph
    if divisor is not None:
        undivided, constant = f"{OUTPUT}_undivided", "calibration_temperature"
        for node in graph.node:
            node.output[:] = [undivided if name == OUTPUT else name for name in node.output]
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(divisor, np.float32), constant))
        graph.node.append(onnx.helper.make_node("Div", [undivided, constant], [OUTPUT]))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(notes))
    onnx.save(model, path)


def session(path: Path, level: str = "ORT_ENABLE_ALL") -> LogitsFunction:
    """Return a function that runs the file in onnxruntime on the CPU, with as many threads as torch uses.

    Raises:
        ExportError: If onnxruntime cannot load the file.
    """
    try:
        opened = open_session(path, level)
    except ValueError as error:
        raise ExportError(f"{error}: {REMEDY}") from error
    return lambda images: torch.from_numpy(opened.run([OUTPUT], {INPUT: images.numpy()})[0])


def sessions(path: Path) -> Iterator[tuple[str, LogitsFunction]]:
    """Yield (level, function) for each optimization level of onnxruntime."""
    for level in LEVELS:
        yield level, session(path, level)


def latencies(networks: Mapping[str, LogitsFunction], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the CPU latency in ms at batch size 1 of each network, `NAME_ms_1`, and the protocol."""
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        runs = {name: latency.median(functools.partial(network, image)) for name, network in networks.items()}
    counted = ", ".join(f"{name} {timing.repetitions}" for name, timing in runs.items())
    return {
        **{f"{name}_ms_1": 1000 * timing.seconds for name, timing in runs.items()},
        "protocol": f"batch 1, CPU, {torch.get_num_threads()} threads, default optimization, float32 images, after warm-up, "
        f"median of repetitions within {latency.BUDGET} s ({counted})",
    }
