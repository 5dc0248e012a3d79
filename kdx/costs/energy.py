"""Energy of the GPUs, if NVML is available (`pip install kdx[energy]`)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch


class EnergyMeter:
    """Measures the energy in J that the GPUs of this host used since the creation of the meter. Never raises.

    Reads NVML's total energy counter (Volta and later), so other processes on the same GPUs are included. CPU and memory of
    the host are not included. `devices` are torch's indices, by default all visible GPUs.
    """

    def __init__(self, devices: Sequence[int] | None = None) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        try:
            self._nvml, self._handles = _connect(devices)
            self._began = self._millijoules()
        except Exception:  # no library, driver or counter: the energy is optional, so the run continues
            self._handles = []

    def joules(self) -> float | None:
        """Return the energy so far in J, or None if it is not available."""
        if not self._handles:
            return None
        try:
            return (self._millijoules() - self._began) / 1000
        except Exception:  # such as a GPU that is lost during the run
            return None

    def _millijoules(self) -> float:
        return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self._handles)


def _connect(devices: Sequence[int] | None) -> tuple[Any, list[Any]]:
    """Return NVML and its GPU handles, looked up by UUID, because NVML's indices ignore CUDA_VISIBLE_DEVICES."""
    if not torch.cuda.is_available():
        return None, []
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    chosen = range(torch.cuda.device_count()) if devices is None else devices
    uuids = [str(torch.cuda.get_device_properties(i).uuid) for i in chosen]
    return nvml, [nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}") for uuid in uuids]
