"""The machine as a benchmark needs it: what it is, how fast it is at a fixed kernel, and how fast a GPU could be."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import torch

from kdx.costs import latency
from kdx.run.provenance import provenance

SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices of the fixed kernel
# Dense bfloat16 FLOP/s in NVIDIA's data sheets, by a part of the GPU's name; SXM versions.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "V100": 125e12}


def device() -> torch.device:
    """Return the device of the benchmark: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(work: Callable[[], object]) -> float:
    """Return the median time of a piece of work on the device."""

    def whole() -> None:
        work()
        latency.synchronize(device())

    return latency.median(whole).seconds


def kernel_flops() -> float:
    """Return the FLOP/s of a matrix product: float32 on a CPU, bfloat16 on a GPU.

    Measured before and after a setting, it tells whether the machine became slower or faster meanwhile.
    """
    where = device()
    side = SIDE[where.type]
    matrix = torch.ones(side, side, device=where, dtype=torch.bfloat16 if where.type == "cuda" else torch.float32)
    return 2 * side**3 / seconds(lambda: matrix @ matrix)


def peak_flops() -> float | None:
    """Return the bfloat16 FLOP/s that the GPU can reach; None without a GPU, or if it is not in the list."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def describe() -> dict[str, Any]:
    """Return what the machine and the software are, as plain data."""
    about = provenance(())
    hardware = {"processor": about["hardware"]["cpu"], "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    hardware |= {"gpus": about["hardware"]["gpus"], "system": platform.system(), "architecture": platform.machine()}
    return {**hardware, "versions": about["versions"], "commit": about["git_commit"], "changed": about["git_dirty"]}
