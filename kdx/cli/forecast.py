"""How long runs would take, and what they would need: computed from the pace of short ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal as size
from rich.table import Table

from kdx.run.durations import duration

if TYPE_CHECKING:
    from kdx.experiment.outline import Outline, Training

STEPS = 25  # of a short run
LIMIT = 40  # batches of val and of test in a short run
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Pace:
    """What a short run took: seconds of its process, its final metrics, its pace and that of teachers, bytes of its folder."""

    process: float
    metrics: Mapping[str, float]
    run: Mapping[str, float]
    teachers: Mapping[str, Mapping[str, float]]
    size: int

    @property
    def start_up(self) -> float:
        """Seconds before the run: imports, and the composition of the config."""
        return self.process - self.metrics["seconds"] - self.metrics.get("teacher_seconds", 0.0)


@dataclass(frozen=True)
class Forecast:
    """A kind of run: how many there are, what they do, how fast; `others` are the teachers of the others of this kind."""

    label: str
    count: int
    plan: Outline
    pace: Pace
    others: Sequence[Mapping[str, Training]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds of one run, without its teacher's training and without the start-up of the process."""
        return self.pace.metrics["seconds"] + _longer(self.plan, self.pace.run) + self._rest_of_test

    @property
    def _rest_of_test(self) -> float:
        """Seconds of the test that the short run left out; as many per image as a validation takes."""
        batch = self.plan.config.data.batch_size
        tested, measured = self.plan.images["test"], min(self.plan.images["val"], LIMIT * batch)
        left = max(tested - LIMIT * batch, 0) if self.plan.config.test else 0
        return left * self.pace.run["per_validation"] / max(measured, 1)

    def trainings(self) -> dict[str, float]:
        """Return the seconds of the training of each teacher that is not done yet, by its folder."""
        found = {}
        for teachers in (self.plan.teachers, *self.others):
            for path, training in teachers.items():
                pace = self.pace.teachers.get(path.rpartition(".")[2])
                if not training.done and pace is not None:
                    own = self.pace.metrics.get("teacher_seconds", 0.0) / len(self.pace.teachers)
                    found[str(training.folder)] = own + _longer(training.outline, pace)
        return found


def _longer(plan: Outline, pace: Mapping[str, float]) -> float:
    """Return how many seconds more the whole training takes than the short one."""
    val = min(plan.images["val"], LIMIT * plan.config.data.batch_size)
    whole = pace["per_validation"] * plan.images["val"] / max(val, 1)
    validations = plan.validations * whole - pace["validations"] * pace["per_validation"]
    return (plan.batches - pace["batches"]) * pace["per_batch"] + validations


def show(found: Sequence[Forecast], measured: int) -> None:
    """Print the plan."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    runs = sum(one.count for one in found)
    table = Table(title=f"{runs} run{'s' if runs > 1 else ''}", title_justify="left")
    for title in ("runs", "what", "train", "val", "test", "steps per epoch", "steps", "validations", "ms per batch", "one run"):
        table.add_column(title, justify="left" if title == "what" else "right", overflow="fold")
    for one in found:
        plan, images = one.plan, one.plan.images
        table.add_row(
            *(str(one.count), one.label, *(f"{images[split]:,}" for split in ("train", "val", "test"))),
            *(f"{plan.length.per_epoch:g}", f"{plan.length.total:,}", str(plan.validations)),
            *(f"{1e3 * one.pace.run['per_batch']:.1f}", duration(one.seconds)),
        )
    console.print(table)
    for line in _lines(found, measured):
        print(line)


def _lines(found: Sequence[Forecast], measured: int) -> list[str]:
    lines = [_curve(one) for one in found[:1] if one.plan.lr]
    trainings: dict[str, float] = {}
    for one in found:
        trainings |= one.trainings()
    for one in found:
        for path, training in one.plan.teachers.items():
            network = training.outline.config.student.get("architecture")
            state = "is kept" if training.done else f"is trained first, {training.outline.length.epochs} epochs"
            lines.append(f"{path} {network} {state}: {training.folder}")
    times = {"start-up": found[0].pace.start_up, "runs": sum(one.count * one.seconds for one in found)}
    if trainings:
        times["a teacher" if len(trainings) == 1 else f"{len(trainings)} teachers"] = sum(trainings.values())
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in times.items())
    lines = list(dict.fromkeys(lines))
    lines.append(f"Time: about {_exact(sum(times.values()))}, one run after the other ({parts})")
    if measured < len(found):
        lines.append(f"The last {len(found) - measured} kinds of runs were not measured, and count like the one before")
    memory = max(one.pace.metrics.get("peak_memory_mb", 0.0) for one in found)
    lines.append(f"Memory: {memory * 2**20 / 1e9:.1f} GB for one run")
    lines.append(f"Disk: {size(sum(one.count * one.pace.size for one in found))} for the folders of the runs")
    return lines


def _exact(seconds: float) -> str:
    """Return a duration with its seconds, if it is short enough for them to matter."""
    return f"{seconds:.0f} s" if seconds < 600 else duration(seconds)


def _curve(one: Forecast) -> str:
    """Return the learning rate as a line of bars, with its first, largest and last value."""
    rates: list[Any] = one.plan.lr
    top = max(rates) or 1.0
    bars = "".join(BARS[min(int(rate / top * len(BARS)), len(BARS) - 1)] for rate in rates)
    return f"Learning rate: {bars}  first {rates[0]:.3g}, largest {max(rates):.3g}, last {rates[-1]:.3g}"
