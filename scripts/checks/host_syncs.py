"""What happens within the training steps of a run: operations that make the host wait for the device, or an interruption."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdx.training.module import DistillationModule

# Operations whose result the host needs, or whose output has a size that depends on values.
SYNCHRONIZING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
# In the rehearsal on a CPU only: an optimizer's counters stay on the host, and one_hot looks at the labels on a CPU alone.
OF_THE_CPU = (f"torch{os.sep}optim{os.sep}", "one_hot(")


class HostSyncs(TorchDispatchMode):
    """Records operations that would make the host wait if their tensors were on a GPU, with the line of kdx that has them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.operations = 0  # that were looked at

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.operations += 1
        by_mask = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        if name in SYNCHRONIZING or by_mask:
            stack = traceback.extract_stack()
            if not any(part in frame.filename or part in (frame.line or "") for frame in stack for part in OF_THE_CPU):
                self.found.append(f"{name} at {place(stack)}")
        return function(*args, **(kwargs or {}))


def place(stack: traceback.StackSummary) -> str:
    """Return the innermost line of kdx or Lightning on the stack, as FILE:LINE."""
    frames = [one for one in stack if f"{os.sep}kdx{os.sep}" in one.filename or "lightning" in one.filename]
    return f"{os.sep.join(frames[-1].filename.split(os.sep)[-3:])}:{frames[-1].lineno}" if frames else "torch"


@contextmanager
def at_steps(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with the number of the step before each training step of a run with a teacher."""
    original = DistillationModule.training_step

    def step(self: DistillationModule, *args: Any) -> Any:
        if self.distiller.teacher is not None:  # not in the training of the teacher
            act(self.global_step)
        return original(self, *args)

    with patch.object(DistillationModule, "training_step", step):
        yield


@contextmanager
def during_steps(first: int, last: int, device: torch.device) -> Iterator[HostSyncs]:
    """Give the host syncs between two steps: on a GPU by CUDA's debug mode, which raises at the first."""
    mode = HostSyncs()

    def act(step: int) -> None:
        if step not in (first, last):
            return
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error" if step == first else "default")
        elif step == first:
            mode.__enter__()
        else:
            mode.__exit__(None, None, None)

    with at_steps(act):
        try:
            yield mode
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Interrupt a run at a step, as Ctrl-C does; it writes a checkpoint and ends."""

    def act(number: int) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGINT)

    with at_steps(act), suppress(KeyboardInterrupt):
        yield
