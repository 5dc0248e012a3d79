"""Write an ONNX file with weights and activations in int8: static quantization by onnxruntime."""

from __future__ import annotations

import importlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdx.export import onnx_file
from kdx.export.parity import ExportError
from kdx.export.ready import Ready
from kdx.networks.file_network import first_line
from kdx.run.quiet import quiet

INT8 = "student_int8.onnx"


class Reader:
    """Gives onnxruntime the images from which it takes the ranges of the activations, a batch at a time."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the next batch, None after the last one."""
        images = next(self.batches, None)
        return None if images is None else {onnx_file.INPUT: images.numpy()}


def quantize(source: Path, to: Path, batches: Iterator[Tensor]) -> None:
    """Write the int8 version of an ONNX file: QuantizeLinear and DequantizeLinear around each operator (QDQ).

    Weights have a scale per channel, activations one from their smallest and largest value on the images. The same images in
    the same order give the same bytes.

    Raises:
        ExportError: If onnxruntime cannot quantize an operator of the network.
    """
    quantization = importlib.import_module("onnxruntime.quantization")
    preparation = importlib.import_module("onnxruntime.quantization.shape_inference")
    int8 = quantization.QuantType.QInt8
    with _silent(), tempfile.TemporaryDirectory() as place:
        prepared = Path(place) / "prepared.onnx"
        try:
            preparation.quant_pre_process(str(source), str(prepared))
            quantization.quantize_static(
                str(prepared),
                str(to),
                Reader(batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=int8,
                weight_type=int8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        except Exception as error:  # it raises many types; the user gets one sentence
            text = f"onnxruntime cannot quantize this network ({first_line(error)}): export without onnx_int8"
            raise ExportError(text) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Keep onnxruntime's quantization, which logs by functions of `logging`, from setting up the root logger."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        with quiet("root", "onnxruntime.quantization.shape_inference"):
            yield
    finally:
        logging.getLogger().removeHandler(handler)


def write_fp32(ready: Ready, to: Path) -> None:
    """Write the trained student in float32."""
    onnx_file.write(ready.trained, ready.request.run.shape, to, ready.request.opset, onnx_file.prefixed(ready.notes))


def quantized(ready: Ready, fp32: Path, batches: Iterator[Tensor]) -> Callable[[Ready, Path], None]:
    """Return a function that writes the int8 version with other notes, divided by the temperature that these include."""
    rounded = fp32.with_name("rounded.onnx")
    quantize(fp32, rounded, batches)

    def write(own: Ready, to: Path) -> None:
        shutil.copy(rounded, to)
        onnx_file.annotate(to, onnx_file.prefixed(own.notes), own.divisor)

    return write
