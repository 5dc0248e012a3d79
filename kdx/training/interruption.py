"""SIGINT and SIGTERM in training: it stops at the next state from which it can go on exactly, between two steps."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from importlib.metadata import version
from types import FrameType

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

log = logging.getLogger("kdx")

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Takes note of a signal; a second SIGINT interrupts at once, as without this class."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def listen(self) -> None:
        """Handle signals from now on. Lightning puts the earlier handlers back when it has finished."""
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                signal.signal(number, self._note)

    def act(self) -> None:
        """Raise KeyboardInterrupt or SIGTERMException if a signal was received."""
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt from None
        if self.received is not None:
            raise SIGTERMException from None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
        log.warning("%s: stopping after this step, with a checkpoint", signal.Signals(number).name)


def stop(trainer: pl.Trainer) -> None:
    """Have Lightning leave `fit` with a SIGTERMException as soon as this batch, or this epoch, is accounted for."""
    _private(lambda: _set_received(trainer))


def one_collective_less(trainer: pl.Trainer) -> None:
    """Keep Lightning from asking the first rank, before every batch and with a host sync, for a signal that it may have got.

    The ranks agree on signals themselves, at the steps at which a checkpoint may be written.
    """
    loop = trainer.fit_loop.epoch_loop
    if not callable(getattr(loop, "_broadcast_sigterm_tensor", None)):
        _private(lambda: loop._broadcast_sigterm_tensor)
    loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    """Do nothing."""


def _set_received(trainer: pl.Trainer) -> None:
    connector = trainer._signal_connector
    _ = connector.received_sigterm
    connector.received_sigterm = True


def _private(use: Callable[[], object]) -> None:
    """Use a private attribute of Lightning; RuntimeError with its version if there is none."""
    try:
        use()
    except AttributeError as error:
        raise RuntimeError(
            f"pytorch_lightning {version('pytorch-lightning')} handles signals otherwise than 2.6 does: {error}"
        ) from error
