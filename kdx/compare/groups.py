"""Groups of runs that differ only in the seed, and the baseline of each group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdx.compare.labels import labels, parts
from kdx.compare.runs import RunRecord
from kdx.config.baselines import DETERMINED
from kdx.config.influence import UNRELATED, relevant

IGNORED = ("seed", *UNRELATED)  # teacher recipes are not ignored


@dataclass(frozen=True)
class Group:
    """Runs with one config and several seeds. `label` names the overrides in which the group differs from the others."""

    label: str
    runs: tuple[RunRecord, ...]  # sorted by seed
    baseline: str | None
    config: Mapping[str, Any]  # of the first run

    @cached_property
    def finished(self) -> dict[int, RunRecord]:
        """The finished run of each seed; if a seed was run several times, the run that started last."""
        done = [run for run in self.runs if run.state == "finished" and run.seed is not None]
        done.sort(key=lambda run: (run.started or "", str(run.path)))
        by_seed = {run.seed: run for run in done if run.seed is not None}
        return dict(sorted(by_seed.items()))

    @property
    def unfinished(self) -> list[RunRecord]:
        """The unfinished runs, without those of seeds that another run has finished."""
        return [run for run in self.runs if run.state != "finished" and run.seed not in self.finished]

    def outside(self, baseline: str) -> frozenset[tuple[str, Any]]:
        """The config without the values that the named baseline fixes; equal for a group and its baseline."""
        fixed = _dotted(("baseline", *DETERMINED.get(baseline, ())))
        return frozenset((path, value) for path, value in identity(self.runs[0]) if not (path + ".").startswith(fixed))


def group_runs(runs: Iterable[RunRecord]) -> list[Group]:
    """Return the groups in the order of their first runs, baselines last. Runs without a readable config are left out."""
    gathered: dict[frozenset[tuple[str, Any]], list[RunRecord]] = {}
    for run in runs:
        if run.config and run.seed is not None and isinstance(run.baseline, str | None):
            gathered.setdefault(identity(run), []).append(run)
    items = sorted(gathered.items(), key=lambda item: item[1][0].baseline is not None)  # sorted() is stable
    sides = [(members[0], dict(config)) for config, members in items]
    names = labels(sides, [any(run.state == "finished" for run in members) for _, members in items])
    groups = []
    for name, (_, members) in zip(names, items, strict=True):
        members.sort(key=lambda run: (run.seed or 0, str(run.path)))
        groups.append(Group(name, tuple(members), members[0].baseline, members[0].config))
    return groups


def baseline_of(group: Group, groups: Sequence[Group], name: str = "scratch") -> Group | None:
    """Return the baseline `name` of a group; None if there is none, or if the group is itself such a baseline.

    The configs of a group and its baseline are equal apart from the values that the baseline fixes. If several groups
    qualify, the one that shares the most seeds is returned.
    """
    return baselines_of([group], groups, name)[0]


def baselines_of(groups: Sequence[Group], among: Sequence[Group], name: str) -> list[Group | None]:
    """Return the baseline `name` of each of `groups`, chosen from `among`; see `baseline_of`."""
    baselines: dict[frozenset[tuple[str, Any]], list[Group]] = {}
    for other in among:
        if other.baseline == name:
            baselines.setdefault(other.outside(name), []).append(other)
    chosen: list[Group | None] = []
    for group in groups:
        candidates = baselines.get(group.outside(name), []) if baselines and group.baseline != name else []
        shared = [len(group.finished.keys() & other.finished.keys()) for other in candidates]
        chosen.append(candidates[shared.index(max(shared))] if candidates else None)
    return chosen


def differences(group: Group, baseline: Group) -> list[str]:
    """Return the config paths that prevent `baseline` from being the baseline of `group`: they differ, but must not."""
    assert baseline.baseline is not None
    first, second = group.outside(baseline.baseline), baseline.outside(baseline.baseline)
    return sorted({path for path, _ in first ^ second})


def settings(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Return, per group, the values of the settings in which the groups differ, by path, both as in an override."""
    return parts([(group.runs[0], dict(identity(group.runs[0]))) for group in groups], ("baseline",))


def identity(run: RunRecord) -> frozenset[tuple[str, Any]]:
    """Return the config values that define a run's group, as (dotted path, value). None counts as absent."""
    return frozenset((path, _hashable(value)) for path, value in relevant(run.flat_config, IGNORED).items())


def _dotted(prefixes: Iterable[str]) -> tuple[str, ...]:
    return tuple(prefix + "." for prefix in prefixes)


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, dict):  # inside a list
        return tuple(sorted((str(key), _hashable(item)) for key, item in value.items()))
    return value
