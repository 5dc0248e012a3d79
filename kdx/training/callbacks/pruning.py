"""Pruning: a trial of a search ends early if others were better at the same epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from kdx.run.study import reporter


class Pruning(Callback):
    """Reports `metric`, of val, once per epoch, and stops the training if `report` returns that the trial is pruned.

    The first rank reports, and all ranks follow its decision. After the last epoch there is nothing to stop.
    """

    def __init__(self, report: Callable[[int, float], bool], metric: str) -> None:
        self.report, self.metric = report, metric
        self.pruned: dict[str, Any] | None = None  # epoch and value at which the training was stopped

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.metric)
        if trainer.sanity_checking or trainer.state.fn != "fit" or value is None or self.pruned is not None:
            return
        epoch = trainer.current_epoch + 1
        decision = self.report(epoch, float(value)) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(decision) and epoch != trainer.max_epochs:
            self.pruned = {"epoch": epoch, "metric": self.metric, "value": float(value)}
            trainer.should_stop = True


def pruning(folder: Path) -> list[Pruning]:
    """Return the callback of the run in a folder; none if it is not a trial, or one that is not pruned."""
    report = reporter(folder)
    return [] if report is None else [Pruning(report, report.metric)]


def pruned(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Return at which epoch and value the trial was pruned; None if it was not."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # not declared
    return next((callback.pruned for callback in callbacks if isinstance(callback, Pruning)), None)
