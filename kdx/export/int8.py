"""Write the student in int8 for a runtime, measured before and after rounding, with T fitted again on val."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from kdx.evaluation.exported import read_exported
from kdx.export import executorch_file, onnx_file, onnx_int8
from kdx.export.parity import compare
from kdx.export.ready import Ready
from kdx.export.rounding import measure, rounding, run_images, warn_of_loss

Write = Callable[[Ready, Path], None]  # a file with the notes of the student, divided by the temperature that it includes


@dataclass(frozen=True)
class Runtime:
    """Names of the files of a runtime, and how they are written.

    `write` writes the trained student in float32; `quantized` rounds it with the images as a guide and returns what writes the
    result.
    """

    fp32: str
    int8: str
    write: Write
    quantized: Callable[[Ready, Path, Iterator[Tensor]], Write]


RUNTIMES = {
    "onnx_int8": Runtime(onnx_file.ONNX, onnx_int8.INT8, onnx_int8.write_fp32, onnx_int8.quantized),
    "executorch_int8": Runtime(
        executorch_file.PTE, executorch_file.PTE_INT8, executorch_file.write_fp32, executorch_file.quantized
    ),
}


def write(runtime: Runtime, ready: Ready, folder: Path) -> dict[str, Any]:
    """Write the int8 file of a runtime with the calibration temperature that was fitted on val after rounding.

    Returns:
        "rounding": "images" (how many of train the ranges come from), "fp32" and "int8" ("bytes", "temperature", "metrics"),
        "agreement" and "max_difference" by split, "latency"; and "parity" of the file with the rounded network.
    """
    request = ready.request
    images = run_images(request.run, request.quantization_images)
    unscaled = replace(ready, temperature=None, divisor=None)
    with tempfile.TemporaryDirectory() as place:
        fp32, int8, final = Path(place) / runtime.fp32, Path(place) / runtime.int8, folder / runtime.int8
        runtime.write(unscaled, fp32)
        student = read_exported(fp32).measured()
        before = measure(student, images)
        write_rounded = runtime.quantized(unscaled, fp32, images.train_batches(student))
        write_rounded(unscaled, int8)
        rounded = read_exported(int8).measured()
        after = measure(rounded, images, before.temperature)
        warn_of_loss(before, after)
        own = ready.calibrated_by(after.temperature)
        write_rounded(own, final)
        written = read_exported(final).network
        divisor = own.divisor or 1.0
        parity = compare(runtime.int8, written, lambda batch: rounded.student(batch) / divisor, ready.batches)
        latency = onnx_file.latencies({"fp32": student.student, "int8": written}, request.run.shape)
        report = rounding(before, after, {"fp32": fp32, "int8": final}, latency, len(images.train))
    return {"rounding": report, "parity": parity}
