"""Energy of the GPUs, where NVIDIA's library counts it (`pip install kdx[energy]`)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch


class EnergyMeter:
    """Joules that GPUs of this host used since the meter was made; None wherever that cannot be known. It never raises.

    The counters are the GPUs' own (NVML's total energy, Volta and later), so whatever else runs on them counts too. `devices`
    are torch's indices; all visible GPUs where none are given. CPU and memory of the host are not counted.
    """

    def __init__(self, devices: Sequence[int] | None = None) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        try:
            self._nvml, self._handles = _connect(devices)
            self._began = self._millijoules()
        except Exception:  # no library, no driver, no counter: energy is a number more, never a reason to fail
            self._handles = []

    def joules(self) -> float | None:
        """Joules so far."""
        if not self._handles:
            return None
        try:
            return (self._millijoules() - self._began) / 1000
        except Exception:  # a GPU that fell off the bus
            return None

    def _millijoules(self) -> float:
        return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self._handles)


def _connect(devices: Sequence[int] | None) -> tuple[Any, list[Any]]:
    """NVML and its handles of the GPUs, found by UUID: its own numbering ignores CUDA_VISIBLE_DEVICES."""
    if not torch.cuda.is_available():
        return None, []
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    chosen = range(torch.cuda.device_count()) if devices is None else devices
    uuids = [str(torch.cuda.get_device_properties(i).uuid) for i in chosen]
    return nvml, [nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}") for uuid in uuids]
