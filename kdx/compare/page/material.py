"""The data of the page: runs with their link targets, groups with their styles, and curves."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from kdx.compare.groups import Group, group_runs
from kdx.compare.metric_names import directions, finite, short, split_of
from kdx.compare.page.charts import Look, look
from kdx.compare.runs import RunRecord, read_curves

MOST_GROUPS = 40  # with a line or an option of their own
MOST_ROWS, MOST_RUNS = 200, 200  # groups with a row and a point, and runs with details; more make a page too large
BEST = "val/student/accuracy"  # of more groups, those with the best mean are shown: test chooses nothing
Points = Sequence[tuple[int, float]]  # (epoch, as the run counts: from 1; value)
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
    rows: Sequence[System]  # those that the page shows: all, or the baselines and the best of many
    listed: Sequence[RunRecord]  # those with a row and details: all, or those of the first rows
    ids: Mapping[str, str]  # link target by run path
    curves: Mapping[str, Curves]  # of the runs in `drawn`, by run path
    split: str  # on which students are compared: "test" or "val"
    higher_is_better: Mapping[str, bool | None] = field(default_factory=dict)  # by quantity

    @property
    def drawn(self) -> Sequence[System]:
        """The groups with a line, row or option of their own: all, or of many the baselines and the best, as in `rows`."""
        kept = {system.label for system in shown(self.rows, BEST, MOST_GROUPS)}
        return [system for system in self.rows if system.label in kept]

    @property
    def left_out(self) -> str:
        """A sentence on the groups that are not drawn, for the note of a chart; "" if all are drawn."""
        rest = len(self.systems) - MOST_GROUPS
        which = f"the baselines, and the best by {BEST}"
        return f" Shown are {which}; {rest} more groups are not: select runs with --where." if rest > 0 else ""

    @property
    def unlisted(self) -> str:
        """A sentence on the groups and runs without a row, for the note of the tables; "" if all have one."""
        if len(self.rows) == len(self.systems) and len(self.listed) == len(self.runs):
            return ""
        shown = f"{len(self.rows):,} of {len(self.systems):,} groups and {len(self.listed):,} of {len(self.runs):,} runs"
        which = f" (baselines, and the best by {BEST})" if len(self.rows) < len(self.systems) else ""
        return f" Shown are {shown}{which}: --where KEY=VALUE selects others, and kdx-compare -o FILE.csv lists all."

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
        systems.append(System(group, look(index), list(group.finished.values()), group.unfinished))
    tested = [split_of(run.metrics) for run in sound if run.state == "finished"]
    split = "test" if tested and tested.count("test") * 2 > len(tested) else "val"
    rows = shown(systems, BEST, MOST_ROWS)
    by_seed = zip_longest(*(system.group.runs for system in rows))  # so that each group has a run with details
    listed = runs if len(runs) <= MOST_RUNS else [run for seed in by_seed for run in seed if run is not None][:MOST_RUNS]
    drawn = shown(rows, BEST, MOST_GROUPS)
    curves = {
        str(run.path): {name: per_epoch(points) for name, points in read_curves(run).items()}
        for system in drawn
        for run in system.group.runs
    }
    for system in drawn:
        for run in system.done:
            for earlier in (other for other in system.group.runs if goes_on(run, other)):
                curves[str(run.path)] = joined(curves[str(earlier.path)], curves[str(run.path)])
    return Material(
        runs,
        systems,
        rows,
        listed,
        {str(run.path): anchor(run) for run in runs},
        curves,
        split,
        directions(run.higher_is_better for run in sound),
    )


def shown(systems: Sequence[System], metric: str, most: int) -> Sequence[System]:
    """Return all groups, or of more than `most` the baselines, then those with the highest mean of the metric."""
    if len(systems) <= most:
        return systems

    def place(system: System) -> tuple[bool, float]:
        mean = system.mean(metric)
        return system.group.baseline is None, float("inf") if mean is None else -mean

    return sorted(systems, key=place)[:most]


def goes_on(run: RunRecord, earlier: RunRecord) -> bool:
    """Return whether `run` was resumed, in a folder of its own, from a checkpoint of the other run."""
    checkpoint = run.config.get("ckpt_path")
    if not isinstance(checkpoint, str) or run is earlier or run.seed != earlier.seed:
        return False
    return Path(checkpoint).parent.parent.name == earlier.path.name  # the folders may have been moved since


def joined(before: Curves, after: Curves) -> dict[str, Points]:
    """Return the curves of a run that was resumed: those before it up to its first epoch, then its own."""
    whole = dict(before)
    for name, points in after.items():
        whole[name] = [*(point for point in before.get(name, ()) if point[0] < points[0][0]), *points] if points else points
    return whole


def anchor(run: RunRecord) -> str:
    """Return the link target of a run: name, seed and a hash of its path, so that it does not depend on other runs."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{run.name} {run.seed}").strip("-")[:40]
    return f"run-{words}-{zlib.crc32(str(run.path).encode()):08x}"


def per_epoch(points: Sequence[tuple[int, int, float]]) -> Points:
    """Return (epoch, mean of the finite values logged in it)."""
    once = {epoch: value for epoch, _, value in points}
    if len(once) == len(points):  # as most metrics are
        return sorted((epoch, value) for epoch, value in once.items() if abs(value) < math.inf)
    by_epoch: dict[int, list[float]] = {}
    for epoch, _, value in points:
        if abs(value) < math.inf:
            by_epoch.setdefault(epoch, []).append(value)
    return [(epoch, sum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]
