"""Progress display: the number of finished runs and the remaining time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from kdx.evidence.planned_run import PlannedRun
from kdx.run.durations import duration

log = logging.getLogger("kdx")


class Forecast:
    """Estimate of the remaining time from the times of finished runs.

    A run is expected to take the mean time of its system with other seeds; without those, the mean time per epoch of all runs
    times its number of epochs.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.total = self.size = 0.0

    def learn(self, run: PlannedRun, seconds: float) -> None:
        """Add the time of a finished run, in seconds."""
        self.seconds.setdefault((run.family, run.system), []).append(seconds)
        self.total, self.size = self.total + seconds, self.size + run.size

    def left(self, runs: Sequence[PlannedRun], jobs: int) -> float | None:
        """Return the estimated seconds until `jobs` processes finish `runs`; None if no run is finished yet."""
        if not self.size:
            return None
        total = 0.0
        for run in runs:
            times = self.seconds.get((run.family, run.system))
            total += sum(times) / len(times) if times else run.size * self.total / self.size
        return total / max(1, min(jobs, len(runs)))


class Board:
    """A progress bar on a terminal; otherwise a log line at intervals."""

    def __init__(self, total: int, done: int, seconds_between_lines: float = 30.0) -> None:
        console = Console(stderr=True)
        self.total, self.done, self.failed = total, done, 0
        self.every, self.last_line = seconds_between_lines, 0.0
        self.bar: Progress | None = None
        self.task = TaskID(0)
        if console.is_terminal:
            columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[left]}  {task.fields[last]}"), console=console)
            self.task = self.bar.add_task("", total=total, completed=done, left="", last="")

    def __enter__(self) -> Board:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def ended(self, run: PlannedRun, error: str, left: float | None) -> None:
        """Report the end of a run.

        Args:
            run: The run.
            error: The error; "" if the run succeeded.
            left: The estimated remaining seconds; None if unknown.
        """
        self.done += 1
        self.failed += bool(error)
        text = "" if left is None else f"{duration(left)} left"
        if error:
            self.print(f"{run.text} failed: {error}")
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, left=text, last=run.text)
        elif time.monotonic() - self.last_line >= self.every or self.done == self.total:
            self.last_line = time.monotonic()
            self.print(f"{self.done}/{self.total} runs  {text}")

    def print(self, text: str) -> None:
        """Print a line above the progress bar, or log it if there is no bar."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False)
        else:
            log.info(text)
