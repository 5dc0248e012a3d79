"""Progress bar and log lines: epoch, validation metrics and remaining time."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kdx.run.durations import duration
from kdx.run.sweep_folder import write_progress
from kdx.run.sweep_progress import position, progress

log = logging.getLogger("kdx")

MOST_JOBS = 100  # of a sweep whose end is estimated again with each line


class RunProgress(ProgressBar):
    """One progress bar for the whole training with the remaining time; without a terminal, a log line every few seconds."""

    def __init__(self, seconds_between_lines: float = 10.0) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.enabled = True
        self.place: tuple[int, int] | None = None  # of the job in its sweep, and the number of jobs

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = self.reported = self.noted = time.monotonic()
        self.first_step, self.total = trainer.global_step, int(trainer.estimated_stepping_batches)
        self.place = position(Path(trainer.default_root_dir))
        console = Console(stderr=True)
        alone = trainer.datamodule.sharing.interruption is None  # type: ignore[attr-defined]  # Lightning does not declare it
        if not (alone and self.enabled and trainer.is_global_zero and console.is_terminal):  # bars would overwrite each other
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[score]}"))
        self.bar = Progress(*columns, *times, console=console, transient=True)
        self.task = self.bar.add_task(self._where(trainer), total=self.total, completed=self.first_step, score="")
        self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step)
        if trainer.is_global_zero:
            self._note(trainer)

    def _note(self, trainer: pl.Trainer) -> None:
        """Write progress.json for `kdx-sweep`, if it is time to."""
        if time.monotonic() - self.noted < self.seconds_between_lines:
            return
        self._write_progress(trainer)

    def _write_progress(self, trainer: pl.Trainer) -> None:
        self.noted = time.monotonic()
        monitor = next((name for callback in trainer.checkpoint_callbacks if (name := getattr(callback, "monitor", None))), "")
        score = trainer.callback_metrics.get(monitor)
        score_now = None if score is None else float(score)
        write_progress(Path(trainer.default_root_dir), self._epoch(trainer), self._seconds_left(trainer), score_now)

    def _seconds_left(self, trainer: pl.Trainer) -> float:
        done = max(trainer.global_step - self.first_step, 1)
        return (time.monotonic() - self.began) / done * (self.total - trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not (self.enabled and trainer.is_global_zero):
            return
        numbers = trainer.callback_metrics
        score = "  ".join(
            f"val {name} {float(numbers[key]):.4f}" for name in ("accuracy", "nll") if (key := f"val/student/{name}") in numbers
        )
        if self.bar is not None:
            self.bar.update(self.task, description=self._where(trainer), score=score)
        elif time.monotonic() - self.reported >= self.seconds_between_lines:
            self.reported = time.monotonic()
            left = duration(self._seconds_left(trainer))
            log.info("%s  %s  about %s left%s", self._where(trainer), score, left, self._of_sweep(trainer))

    def _of_sweep(self, trainer: pl.Trainer) -> str:
        """Return the time until the end of the sweep, in words; empty without a sweep, or if it is large."""
        if self.place is None or not 1 < self.place[1] <= MOST_JOBS:
            return ""
        self._write_progress(trainer)
        left = progress(Path(trainer.default_root_dir).parent).seconds_left
        return "" if left is None else f", {duration(left)} of the sweep"

    def _where(self, trainer: pl.Trainer) -> str:
        job = "" if self.place is None else "job {}/{}  ".format(*self.place)
        return f"{job}epoch {self._epoch(trainer)}"

    def _epoch(self, trainer: pl.Trainer) -> str:
        last = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        return f"{trainer.current_epoch + 1}/{last}"

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        (self.bar.console if self.bar is not None else Console(stderr=True)).print(*args)
