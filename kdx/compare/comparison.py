"""Groups of runs beside each other: means over seeds, and paired differences to a baseline with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdx.compare import caveats
from kdx.compare.groups import Group, baselines_of, differences, group_runs
from kdx.compare.metric_names import directions
from kdx.compare.metric_selection import asked_metrics, default_metrics, nearest, numbers
from kdx.compare.runs import RunRecord
from kdx.compare.statistics import Estimate, estimate, paired
from kdx.config.baselines import DETERMINED


@dataclass(frozen=True)
class Cell:
    """A metric of a group. `std` is over seeds, with n - 1; None for one seed."""

    values: Mapping[int, float]  # by seed
    mean: float
    std: float | None

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)


@dataclass(frozen=True)
class PairedDifference:
    """A group minus its baseline, seed by seed. Without two pairs there is no estimate, and `why` says so."""

    values: Mapping[int, float]  # by seed
    mean: float
    estimate: Estimate | None
    why: str


@dataclass(frozen=True)
class Row:
    """One group. `against` is the label of its baseline; None where it has none or is one itself."""

    group: Group
    selection: str
    cells: Mapping[str, Cell]
    against: str | None
    differences: Mapping[str, PairedDifference]

    @property
    def label(self) -> str:
        """The group's."""
        return self.group.label

    @property
    def n(self) -> int:
        """How many seeds are finished."""
        return len(self.group.finished)


@dataclass(frozen=True)
class Comparison:
    """All groups, the metrics they are compared in, what they are compared with, and the caveats.

    `higher_is_better` says it of each quantity ("accuracy"); None where neither is.
    """

    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    against: str | None
    caveats: tuple[str, ...]
    higher_is_better: Mapping[str, bool | None]

    @property
    def intervals(self) -> int:
        """How many intervals were computed: one in twenty excludes 0 by chance."""
        found = [difference for row in self.rows for difference in row.differences.values()]
        return sum(difference.estimate is not None and difference.estimate.std > 0 for difference in found)


def compare(runs: Sequence[RunRecord], metrics: Iterable[str] | None = None, against: str | None = None) -> Comparison:
    """Compare the finished runs, group by group.

    `metrics` are flat names or globs; by default quality on test, and cost. `against` is the name of a baseline
    ("scratch"), a group's label or a run's name; by default the baseline if the runs have exactly one kind.
    Nothing that is wrong with single runs is an error: it is remarked. ValueError if no run is finished, for an unknown
    metric or baseline, and if the baseline that was asked for is nobody's.
    """
    everyone = group_runs(runs)
    groups = [group for group in everyone if group.finished]
    if not groups:
        raise ValueError(_nothing(runs))
    finished = [run for group in groups for run in group.finished.values()]
    names, stand_in = (asked_metrics(metrics, finished), "") if metrics is not None else default_metrics(finished)
    chosen, baselines, unpaired = _pair(groups, against)
    rows = tuple(_row(group, baseline, names) for group, baseline in zip(groups, baselines, strict=True))
    said = [stand_in, *caveats.of_tasks(groups), *unpaired, *caveats.of_seeds(groups, baselines), *caveats.of_facts(groups)]
    said += [*caveats.of_states(runs, everyone), _single(rows)]
    return Comparison(
        tuple(names),
        rows,
        chosen,
        tuple(caveat for caveat in said if caveat),
        directions(run.higher_is_better for run in finished),
    )


def _row(group: Group, baseline: Group | None, names: Sequence[str]) -> Row:
    cells = _cells(group, names)
    found: dict[str, PairedDifference] = {}
    if baseline is not None:
        for name, cell in _cells(baseline, names).items():
            if name in cells:
                values = paired(cells[name].values, cell.values)
                if values:
                    found[name] = _difference(values)
    rules = sorted({caveats.rule(run) for run in group.finished.values()})
    return Row(group, ", ".join(rules), cells, None if baseline is None else baseline.label, found)


def _cells(group: Group, names: Sequence[str]) -> dict[str, Cell]:
    by_seed = {seed: numbers(run) for seed, run in group.finished.items()}
    cells = {}
    for name in names:
        values = {seed: metrics[name] for seed, metrics in by_seed.items() if name in metrics}
        if values:
            array = np.array(list(values.values()))
            cells[name] = Cell(values, float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None)
    return cells


def _difference(values: Mapping[int, float]) -> PairedDifference:
    mean = float(np.mean(list(values.values())))
    if len(values) < 2:
        return PairedDifference(values, mean, None, "one pair of seeds has no interval: run more seeds, such as seed=0,1,2,3,4")
    return PairedDifference(values, mean, estimate(list(values.values())), "")


def _pair(groups: Sequence[Group], against: str | None) -> tuple[str | None, list[Group | None], list[str]]:
    """What is compared with, each group's baseline, and caveats on those without one."""
    nobody: list[Group | None] = [None] * len(groups)
    kinds = sorted({group.baseline for group in groups if group.baseline is not None})
    if against is None:
        if len(kinds) != 1:
            choice = [f"there are several kinds of baselines: compare against one, {' or '.join(kinds)}"] if kinds else []
            return None, nobody, choice
        name = kinds[0]
    else:
        name = against.removeprefix("baseline=") if against.removeprefix("baseline=") in kinds else against
    if name in kinds:
        baselines = [
            _same_task(group, baseline) for group, baseline in zip(groups, baselines_of(groups, groups, name), strict=True)
        ]
        lonely = _lonely(groups, baselines, name)
        if against is not None and not any(baselines):
            raise ValueError(lonely[0] if lonely else f"all runs are baseline={name}: give the runs to compare with it too")
        return name, baselines, lonely
    one = _named(groups, name, kinds)
    return one.label, [None if group is one else _same_task(group, one) for group in groups], []


def _same_task(group: Group, baseline: Group | None) -> Group | None:
    return baseline if baseline is not None and caveats.task(group.runs[0]) == caveats.task(baseline.runs[0]) else None


def _lonely(groups: Sequence[Group], baselines: Sequence[Group | None], name: str) -> list[str]:
    """A sentence for each group that has no baseline of that name, with the remedy."""
    candidates = [group for group in groups if group.baseline == name]
    found = []
    for group, baseline in zip(groups, baselines, strict=True):
        if baseline is None and group.baseline is None:
            nearest_one = min(candidates, key=lambda other: len(differences(group, other)))
            paths = differences(group, nearest_one)
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            found.append(
                f"{group.label} has no baseline={name}: the nearest differs in {', '.join(paths[:3])}{more}; "
                f"train its own with baselines=[{name}]"
            )
    return caveats.few(found)


def _named(groups: Sequence[Group], name: str, kinds: Sequence[str]) -> Group:
    for group in groups:
        if group.label == name:
            return group
    same = [group for group in groups if any(run.name == name for run in group.runs)]
    if len(same) == 1:
        return same[0]
    if same:
        raise ValueError(
            f"'{name}' names {len(same)} groups: give the label of one: {', '.join(group.label for group in same)}"
        )
    if name.removeprefix("baseline=") in DETERMINED:
        kind = name.removeprefix("baseline=")
        raise ValueError(f"no finished run is a baseline={kind}: train some with baselines=[{kind}], or give their folder too")
    known = [*kinds, *(group.label for group in groups)]
    raise ValueError(f"there is nothing called '{name}' to compare with.{nearest(name, known)}")


def _single(rows: Sequence[Row]) -> str:
    if len({row.n for row in rows}) == 1 and rows[0].n == 1:
        return "one seed each says nothing of the spread: run more, such as seed=0,1,2,3,4"
    return ""


def _nothing(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return "there are no runs: give a folder with runs in it, such as outputs"
    count = {state: sum(run.state == state for run in runs) for state in ("going", "stopped", "damaged")}
    told = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    broken = next((f"; {run.path}: {run.problem}" for run in runs if run.problem), "")
    remedy = "wait, or go on with ckpt_path=RUN/checkpoints/last.ckpt" if count["damaged"] < len(runs) else "run them again"
    return f"none of {len(runs)} runs is finished ({told}): {remedy}{broken}"
