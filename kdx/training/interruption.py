"""Signals in training: it stops at the next state from which it can go on exactly, between two steps."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from kdx.training.ranks import rank

log = logging.getLogger("kdx")

STOP = (signal.SIGINT, signal.SIGTERM)
REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)  # Slurm tells a job in time that it ends; it is queued again, and goes on


class Interruption:
    """Takes note of a signal; a second SIGINT interrupts at once, as without this class."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.before: dict[int, Any] = {}
        self.at_once = False  # whether the second SIGINT has come
        self.of_several = False  # runs, within `listening`

    def listen(self) -> None:
        """Handle signals from now on. Lightning puts the earlier handlers back when it has finished."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other thread handle signals
        for number in (*STOP, *(REQUEUE if "SLURM_JOB_ID" in os.environ else ())):
            self.before.setdefault(number, signal.signal(number, self._note))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals for several runs, and put the earlier handlers back; act on a signal at the end."""
        self.listen()
        self.of_several = True
        try:
            yield
        finally:
            self.of_several = False
            for number, handler in self.before.items():
                signal.signal(number, handler)
        self.act()

    def act(self) -> None:
        """Queue the job again if that is what a signal was for. Raise KeyboardInterrupt or SIGTERMException after a signal.

        Of several runs, none queues the job again: that is done once, when all have ended.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt from None
        if self.received in REQUEUE and not self.of_several:
            earlier = self.before[self.received]  # submitit's, which queues the job again and exits
            if callable(earlier):
                earlier(self.received, None)
            elif rank() == 0:
                _queue_again()
        if self.received is not None:
            raise SIGTERMException from None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            self.at_once = True
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
        name = signal.Signals(number).name.encode()
        os.write(2, b"\nkdx: " + name + b": stopping after this step, with a checkpoint\n")  # logging might wait for itself


def _queue_again() -> None:
    """Have Slurm start this job again, in the same folder."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{task}"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("Slurm did not queue job %s again (%s): the same command goes on with its run", job, done.stderr.strip())
    else:
        log.info("Slurm has queued job %s again; it goes on then", job)


def stop(trainer: pl.Trainer) -> None:
    """Have Lightning leave `fit` with a SIGTERMException as soon as this batch, or this epoch, is accounted for."""
    with _private():
        connector = trainer._signal_connector
        assert not connector.received_sigterm
        connector.received_sigterm = True


def one_collective_less(trainer: pl.Trainer) -> None:
    """Keep Lightning from asking the first rank, before every batch and with a host sync, for a signal that it may have got.

    The ranks agree on signals themselves, at the steps at which a checkpoint may be written.
    """
    with _private():
        loop = trainer.fit_loop.epoch_loop
        assert callable(loop._broadcast_sigterm_tensor)
        loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]  # Lightning has no setting for it


def _nothing() -> None:
    """Do nothing."""


@contextmanager
def _private() -> Iterator[None]:
    """Raise RuntimeError with the version of Lightning if it has not the private attributes that are used within."""
    try:
        yield
    except AttributeError as error:
        raise RuntimeError(
            f"pytorch_lightning {version('pytorch-lightning')} handles signals otherwise than 2.6 does: {error}"
        ) from error
