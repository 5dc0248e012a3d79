"""Comparison of groups of runs: means over seeds, and paired differences to a baseline with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdx.compare import caveats
from kdx.compare.groups import Group, baselines_of, differences, group_runs
from kdx.compare.metric_names import directions
from kdx.compare.metric_selection import default_metrics, matching_metrics, nearest, numbers
from kdx.compare.runs import RunRecord
from kdx.compare.statistics import Estimate, estimate, paired
from kdx.config.baselines import DETERMINED


@dataclass(frozen=True)
class Cell:
    """A metric of a group. `std` is the standard deviation over seeds with n - 1; None for one seed."""

    values: Mapping[int, float]  # by seed
    mean: float
    std: float | None

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.values)


@dataclass(frozen=True)
class PairedDifference:
    """A group minus its baseline, paired by seed. With fewer than two pairs, `estimate` is None and `why` has the reason."""

    values: Mapping[int, float]  # by seed
    mean: float
    estimate: Estimate | None
    why: str  # "" if there is an estimate


@dataclass(frozen=True)
class Row:
    """One group. `against` is the label of its baseline; None if it has none or is itself a baseline."""

    group: Group
    selection: str
    cells: Mapping[str, Cell]
    against: str | None
    differences: Mapping[str, PairedDifference]

    @property
    def label(self) -> str:
        """The label of the group."""
        return self.group.label

    @property
    def title(self) -> str:
        """The label, with a mark if a run of the group has a caveat of its own."""
        return marked(self.label, *self.group.finished.values())

    @property
    def n(self) -> int:
        """The number of finished seeds."""
        return len(self.group.finished)


@dataclass(frozen=True)
class Comparison:
    """All groups with their metrics, the name or label of the baseline (None if there is none), and caveats.

    `higher_is_better` gives the direction of each quantity ("accuracy"); None if neither direction is better.
    """

    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    against: str | None
    caveats: tuple[str, ...]
    higher_is_better: Mapping[str, bool | None]

    @property
    def intervals(self) -> int:
        """The number of intervals shown; without any effect, one in twenty excludes 0 by chance."""
        differences = [difference for row in self.rows for difference in row.differences.values()]
        return sum(difference.estimate is not None and difference.estimate.std > 0 for difference in differences)


def compare(runs: Sequence[RunRecord], metrics: Iterable[str] | None = None, against: str | None = None) -> Comparison:
    """Compare the finished runs by group.

    Errors in single runs do not raise; they are listed as caveats.

    Args:
        runs: The runs, as `find_runs` returns them.
        metrics: Flat names or globs; by default quality on test, and cost.
        against: The name of a baseline ("scratch"), the label of a group, or the name of a run; by default the baseline,
            if the runs have exactly one kind.

    Raises:
        ValueError: If no run is finished, if a metric or baseline is unknown, or if no group has the given baseline.
    """
    all_groups = group_runs(runs)
    groups = [group for group in all_groups if group.finished]
    if not groups:
        raise ValueError(_none_finished(runs))
    finished = [run for group in groups for run in group.finished.values()]
    names, split_caveat = (matching_metrics(metrics, finished), "") if metrics is not None else default_metrics(finished)
    chosen, baselines, unpaired = _pair(groups, against)
    rows = tuple(_row(group, baseline, names) for group, baseline in zip(groups, baselines, strict=True))
    texts = [split_caveat, *caveats.of_runs(groups), *caveats.of_tasks(groups), *unpaired, *caveats.of_seeds(groups, baselines)]
    texts += [*caveats.of_facts(groups), *caveats.of_states(runs, all_groups), _single_seed(rows)]
    better = directions(run.higher_is_better for run in finished)
    return Comparison(tuple(names), rows, chosen, tuple(text for text in texts if text), better)


def marked(label: str, *runs: RunRecord) -> str:
    """Return the label, with a mark if one of the runs has a caveat of its own."""
    return f"{label} {caveats.MARK}" if any(run.caveats for run in runs) else label


def _row(group: Group, baseline: Group | None, names: Sequence[str]) -> Row:
    cells = cells_of(group, names)
    paired_differences: dict[str, PairedDifference] = {}
    if baseline is not None:
        for name, cell in cells_of(baseline, names).items():
            if name in cells:
                values = paired(cells[name].values, cell.values)
                if values:
                    paired_differences[name] = difference_of(values)
    rules = sorted({caveats.rule(run) for run in group.finished.values()})
    return Row(group, ", ".join(rules), cells, None if baseline is None else baseline.label, paired_differences)


def cells_of(group: Group, names: Sequence[str]) -> dict[str, Cell]:
    """Return the metrics of a group that a finished run of it has, by name."""
    by_seed = {seed: numbers(run) for seed, run in group.finished.items()}
    cells = {}
    for name in names:
        values = {seed: metrics[name] for seed, metrics in by_seed.items() if name in metrics}
        if values:
            array = np.array(list(values.values()))
            cells[name] = Cell(values, float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None)
    return cells


def difference_of(values: Mapping[int, float]) -> PairedDifference:
    """Return the mean of paired differences by seed, with its interval if there are two or more."""
    mean = float(np.mean(list(values.values())))
    if len(values) < 2:
        why = "an interval needs at least two pairs of seeds: run more, such as seed=0,1,2,3,4"
        return PairedDifference(values, mean, None, why)
    return PairedDifference(values, mean, estimate(list(values.values())), "")


def _pair(groups: Sequence[Group], against: str | None) -> tuple[str | None, list[Group | None], list[str]]:
    """Return the name or label of the baseline, each group's baseline, and caveats on groups without one."""
    no_baselines: list[Group | None] = [None] * len(groups)
    kinds = sorted({group.baseline for group in groups if group.baseline is not None})
    if against is None:
        if len(kinds) != 1:
            choice = [f"the runs have several baselines: choose one with --against {' or --against '.join(kinds)}"]
            return None, no_baselines, choice if kinds else []
        name = kinds[0]
    else:
        name = against.removeprefix("baseline=") if against.removeprefix("baseline=") in kinds else against
    if name in kinds:
        baselines = [
            _same_task(group, baseline) for group, baseline in zip(groups, baselines_of(groups, groups, name), strict=True)
        ]
        without = _without_baseline(groups, baselines, name)
        if against is not None and not any(baselines):
            raise ValueError(without[0] if without else f"All runs are baseline={name}: also give the runs to compare with it")
        return name, baselines, without
    reference = _named(groups, name, kinds)
    return reference.label, [None if group is reference else _same_task(group, reference) for group in groups], []


def _same_task(group: Group, baseline: Group | None) -> Group | None:
    return baseline if baseline is not None and caveats.task(group.runs[0]) == caveats.task(baseline.runs[0]) else None


def _without_baseline(groups: Sequence[Group], baselines: Sequence[Group | None], name: str) -> list[str]:
    """Return a caveat for each group that has no baseline `name`, with the remedy."""
    candidates = [group for group in groups if group.baseline == name]
    texts = []
    for group, baseline in zip(groups, baselines, strict=True):
        if baseline is None and group.baseline is None:
            nearest_one = min(candidates, key=lambda other: len(differences(group, other)))
            paths = differences(group, nearest_one)
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            texts.append(
                f"{group.label} has no baseline={name}: the most similar one differs in {', '.join(paths[:3])}{more}; "
                f"train its baseline with baselines=[{name}]"
            )
    return caveats.few(texts)


def _named(groups: Sequence[Group], name: str, kinds: Sequence[str]) -> Group:
    for group in groups:
        if group.label == name:
            return group
    same = [group for group in groups if any(run.name == name for run in group.runs)]
    if len(same) == 1:
        return same[0]
    if same:
        raise ValueError(
            f"'{name}' names {len(same)} groups: give the label of one of them: {', '.join(group.label for group in same)}"
        )
    if name.removeprefix("baseline=") in DETERMINED:
        kind = name.removeprefix("baseline=")
        raise ValueError(f"No finished run has baseline={kind}: train some with baselines=[{kind}], or also give their folder")
    names = [*kinds, *(group.label for group in groups)]
    raise ValueError(f"No run, group or baseline named '{name}'.{nearest(name, names)}")


def _single_seed(rows: Sequence[Row]) -> str:
    if len({row.n for row in rows}) == 1 and rows[0].n == 1:
        return "each group has one seed, so there is no standard deviation: run more seeds, such as seed=0,1,2,3,4"
    return ""


def _none_finished(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return "No runs found: give a folder that contains runs, such as outputs"
    count = {state: sum(run.state == state for run in runs) for state in ("running", "failed", "stopped", "pruned", "damaged")}
    states = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    problem = next((f"; {run.path}: {run.problem}" for run in runs if run.problem), "")
    remedy = "wait, or resume with ckpt_path=RUN/checkpoints/last.ckpt" if count["damaged"] < len(runs) else "rerun them"
    return f"None of {len(runs)} runs is finished ({states}): {remedy}{problem}"
