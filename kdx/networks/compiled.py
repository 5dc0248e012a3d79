"""torch.compile of a network in place: its parts and the names of its weights stay as they are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from kdx.networks.network import Network

REPEATS = 5  # of a step in the trial


class CompileError(RuntimeError):
    """torch cannot compile a network; the message has its reason."""


class Trial(NamedTuple):
    """What compiling a network takes and saves: the seconds of the first run, and a run before and after in ms."""

    warm_up_seconds: float
    plain_ms: float
    compiled_ms: float

    @property
    def pays_after(self) -> float:
        """The number of steps after which the warm-up is regained; infinite if a step is not faster."""
        saved = self.plain_ms - self.compiled_ms
        return 1e3 * self.warm_up_seconds / saved if saved > 0 else float("inf")


def missing_compiler(device: str) -> str | None:
    """Return what torch.compile lacks for a device, "cpu" or "cuda", with the remedy; None if all is there."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"the C++ compiler {compiler} is not installed: install it (apt-get install g++), or set CXX"
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    return None


def compile_in_place(network: Network, runs: Sequence[Callable[[], object]]) -> Trial:
    """Compile a network for the images that each of `runs` shows it, and measure their mean before and after.

    Images of another shape, and another mode than that of the runs, are computed by the plain network: set
    `torch.compiler.set_stance("eager_on_recompile")` after the last network is compiled.

    Raises:
        CompileError: If torch cannot compile it.
    """
    plain = _milliseconds(runs)
    network.model.compile(dynamic=False)
    began = time.perf_counter()
    try:
        for run in runs:
            run()
    except Exception as error:  # of the tracer, of the code generator, or of the compiler
        restore(network)
        raise CompileError(f"{network.architecture}: {type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
    _synchronize()
    return Trial(time.perf_counter() - began, plain, _milliseconds(runs))


def restore(network: Network) -> None:
    """Make a network that was compiled in place plain again."""
    if not hasattr(torch.nn.Module, "_compiled_call_impl"):
        raise RuntimeError(f"torch {torch.__version__} does not keep compiled calls as 2.11 does")
    network.model.__dict__.pop("_compiled_call_impl", None)


def _milliseconds(runs: Sequence[Callable[[], object]]) -> float:
    """Return the median of several times of all runs in ms, divided by their number; the first time is not counted."""
    times = []
    for _ in range(1 + REPEATS):
        _synchronize()
        began = time.perf_counter()
        for run in runs:
            run()
        _synchronize()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[1:]) / len(runs)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
