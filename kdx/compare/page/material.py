"""What the page is made of: runs with their names on the page, groups with their looks, and curves, each read once."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdx.compare.groups import Group, group_runs
from kdx.compare.metric_names import directions, finite, short, split_of
from kdx.compare.page.charts import Look, look
from kdx.compare.runs import RunRecord, read_curves

MOST_GROUPS = 40
Points = Sequence[tuple[int, float]]  # (epoch, counted from 1; value)
Curves = Mapping[str, Points]


@dataclass(frozen=True)
class System:
    """A group as it is drawn. `done` are its finished runs, which its numbers are from; `others` go on or were stopped."""

    group: Group
    look: Look
    done: Sequence[RunRecord]
    others: Sequence[RunRecord]

    @property
    def label(self) -> str:
        return self.group.label

    @property
    def short(self) -> str:
        """The label for a legend or an axis."""
        return short(self.group.label)

    def values(self, metric: str) -> list[float]:
        """The metric of its finished runs that have it, one per seed."""
        found = (finite(run.metrics, metric) for run in self.done)
        return [value for value in found if value is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Material:
    """All that charts and tables are drawn from. `ids` names a run in links; `split` is where students are compared."""

    runs: Sequence[RunRecord]  # damaged ones too
    systems: Sequence[System]
    ids: Mapping[str, str]  # by the run's path
    curves: Mapping[str, Curves]  # by the run's path
    split: str
    higher_is_better: Mapping[str, bool | None] = field(default_factory=dict)  # by quantity

    @property
    def drawn(self) -> Sequence[System]:
        """The groups that get a line, a row or an option of their own; more could neither be told apart nor kept small."""
        return self.systems[:MOST_GROUPS]

    @property
    def left_out(self) -> str:
        """A sentence on the groups beyond those, for a chart's note."""
        rest = len(self.systems) - MOST_GROUPS
        return f" {rest} more groups are left out: choose runs with --where." if rest > 0 else ""

    @property
    def done(self) -> list[RunRecord]:
        return [run for run in self.runs if run.state == "finished"]

    def id(self, run: RunRecord) -> str:
        return self.ids[str(run.path)]


def gather(runs: Sequence[RunRecord]) -> Material:
    """The material of these runs. Damaged ones are listed, and are in no group."""
    sound = [run for run in runs if run.state != "damaged"]
    systems = []
    for index, group in enumerate(group_runs(sound)):
        done = list(group.finished.values())
        others = [run for run in group.runs if run.state != "finished"]
        systems.append(System(group, look(index), done, others))
    curves = {str(run.path): {name: per_epoch(points) for name, points in read_curves(run).items()} for run in sound}
    tested = [split_of(run.metrics) for run in sound if run.state == "finished"]
    split = "test" if tested and tested.count("test") * 2 > len(tested) else "val"
    return Material(
        runs,
        systems,
        {str(run.path): anchor(run) for run in runs},
        curves,
        split,
        directions(run.higher_is_better for run in sound),
    )


def anchor(run: RunRecord) -> str:
    """A name for links to the run: its own words and a few digits of its path, so that it stays when others come."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{run.name} {run.seed}").strip("-")[:40]
    return f"run-{words}-{zlib.crc32(str(run.path).encode()):08x}"


def per_epoch(points: Sequence[tuple[int, int, float]]) -> Points:
    """(epoch, mean of what was logged in it), epochs counted from 1 as people do; what is not finite is left out."""
    found: dict[int, list[float]] = {}
    for epoch, _, value in points:
        if abs(value) < float("inf"):
            found.setdefault(epoch + 1, []).append(value)
    return [(epoch, sum(values) / len(values)) for epoch, values in sorted(found.items())]
