"""How many runs are done, and how long the rest will take."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from kdx.evidence.planned_run import PlannedRun

log = logging.getLogger("kdx")


class Forecast:
    """Seconds that are left, from those that finished runs took.

    A run is expected to take what its system took with other seeds; else what its epochs took in the others.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.total = self.size = 0.0

    def learn(self, run: PlannedRun, seconds: float) -> None:
        """A run of this system took so long."""
        self.seconds.setdefault((run.family, run.system), []).append(seconds)
        self.total, self.size = self.total + seconds, self.size + run.size

    def left(self, runs: Sequence[PlannedRun], jobs: int) -> float | None:
        """Seconds until `runs` are done by `jobs` processes; None before anything is known."""
        if not self.size:
            return None
        total = 0.0
        for run in runs:
            known = self.seconds.get((run.family, run.system))
            total += sum(known) / len(known) if known else run.size * self.total / self.size
        return total / max(1, min(jobs, len(runs)))


class Board:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, total: int, done: int, seconds_between_lines: float = 30.0) -> None:
        console = Console(stderr=True)
        self.total, self.done, self.failed = total, done, 0
        self.every, self.said = seconds_between_lines, 0.0
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
        """A run ended; `error` is empty if it ended well."""
        self.done += 1
        self.failed += bool(error)
        text = "" if left is None else f"{duration(left)} left"
        if error:
            self.say(f"{run.text} failed: {error}")
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, left=text, last=run.text)
        elif time.monotonic() - self.said >= self.every or self.done == self.total:
            self.said = time.monotonic()
            self.say(f"{self.done}/{self.total} runs  {text}")

    def say(self, text: str) -> None:
        """A line, above the bar if there is one."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False)
        else:
            log.info(text)


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "7 min", "1 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
