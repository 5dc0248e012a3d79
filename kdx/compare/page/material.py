"""The data of the page: runs with their link targets, groups with their styles, and curves."""

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
    """A group with its style. Its numbers come from the finished runs `done`; `others` are unfinished."""

    group: Group
    look: Look
    done: Sequence[RunRecord]
    others: Sequence[RunRecord]

    @property
    def label(self) -> str:
        return self.group.label

    @property
    def short(self) -> str:
        """The label shortened for a legend or an axis."""
        return short(self.group.label)

    def values(self, metric: str) -> list[float]:
        """Return the finite values of the metric, one per finished seed."""
        values = (finite(run.metrics, metric) for run in self.done)
        return [value for value in values if value is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Material:
    """The data of all charts and tables."""

    runs: Sequence[RunRecord]  # including damaged ones
    systems: Sequence[System]
    ids: Mapping[str, str]  # link target by run path
    curves: Mapping[str, Curves]  # by run path
    split: str  # on which students are compared: "test" or "val"
    higher_is_better: Mapping[str, bool | None] = field(default_factory=dict)  # by quantity

    @property
    def drawn(self) -> Sequence[System]:
        """The groups with a line, row or option of their own; their number is limited for readability and page size."""
        return self.systems[:MOST_GROUPS]

    @property
    def left_out(self) -> str:
        """A sentence on the groups that are not drawn, for the note of a chart; "" if all are drawn."""
        rest = len(self.systems) - MOST_GROUPS
        return f" {rest} more groups are not shown: select runs with --where." if rest > 0 else ""

    @property
    def done(self) -> list[RunRecord]:
        return [run for run in self.runs if run.state == "finished"]

    def id(self, run: RunRecord) -> str:
        return self.ids[str(run.path)]


def gather(runs: Sequence[RunRecord]) -> Material:
    """Return the data of these runs. Damaged runs are listed but belong to no group."""
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
    """Return the link target of a run: name, seed and a hash of its path, so that it does not depend on other runs."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{run.name} {run.seed}").strip("-")[:40]
    return f"run-{words}-{zlib.crc32(str(run.path).encode()):08x}"


def per_epoch(points: Sequence[tuple[int, int, float]]) -> Points:
    """Return (epoch, mean of the finite values logged in it); epochs count from 1."""
    by_epoch: dict[int, list[float]] = {}
    for epoch, _, value in points:
        if abs(value) < float("inf"):
            by_epoch.setdefault(epoch + 1, []).append(value)
    return [(epoch, sum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]
