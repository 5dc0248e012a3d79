"""Runs that differ only in their seed, as one group; what groups differ in; and which group is another's baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdx.compare.labels import labels
from kdx.compare.runs import RunRecord
from kdx.config.baselines import DETERMINED

# What a run's result does not depend on, or what only says how it was kept. Recipes of teachers stay.
IGNORED = (
    "seed",
    "name",
    "tags",
    "outputs",
    "logger",
    "metrics",
    "ckpt_path",
    "baselines",
    "hydra",
    "callbacks.progress",
    "data.download",
    "data.num_workers",
    "data.resident_budget_mb",
    "data.cache",
    "data.source.root",  # data.root again
    "data.source.download",
    "trainer.log_every_n_steps",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
)


@dataclass(frozen=True)
class Group:
    """Runs of one config and several seeds. `label` says in a few words what sets it apart from the other groups."""

    label: str
    runs: tuple[RunRecord, ...]  # sorted by seed
    baseline: str | None
    config: Mapping[str, Any]  # of the first run

    @cached_property
    def finished(self) -> dict[int, RunRecord]:
        """Seed -> its finished run; of several of one seed the one that started last."""
        done = [run for run in self.runs if run.state == "finished" and run.seed is not None]
        done.sort(key=lambda run: (run.started or "", str(run.path)))
        found = {run.seed: run for run in done if run.seed is not None}
        return dict(sorted(found.items()))

    def outside(self, baseline: str) -> frozenset[tuple[str, Any]]:
        """The config without what a baseline of this name decides for itself: equal for a group and its baseline."""
        own = _dotted(("baseline", *DETERMINED.get(baseline, ())))
        return frozenset((path, value) for path, value in identity(self.runs[0]) if not (path + ".").startswith(own))


def group_runs(runs: Iterable[RunRecord]) -> list[Group]:
    """The groups, treatments first, in the order of their first runs. A run whose config is lost is in none."""
    gathered: dict[frozenset[tuple[str, Any]], list[RunRecord]] = {}
    for run in runs:
        if run.config and run.seed is not None and isinstance(run.baseline, str | None):
            gathered.setdefault(identity(run), []).append(run)
    items = sorted(gathered.items(), key=lambda item: item[1][0].baseline is not None)  # the order is kept otherwise
    names = labels([(found[0], dict(config)) for config, found in items])
    groups = []
    for name, (_, found) in zip(names, items, strict=True):
        found.sort(key=lambda run: (run.seed or 0, str(run.path)))
        groups.append(Group(name, tuple(found), found[0].baseline, found[0].config))
    return groups


def baseline_of(group: Group, groups: Sequence[Group], name: str = "scratch") -> Group | None:
    """The group that is this group's baseline of that name; None if there is none, or if it is such a baseline itself.

    Its config equals the group's outside of what the baseline decides for itself. Of several, the one that shares most seeds.
    """
    return baselines_of([group], groups, name)[0]


def baselines_of(groups: Sequence[Group], among: Sequence[Group], name: str) -> list[Group | None]:
    """The baseline of each of many groups; see `baseline_of`."""
    baselines: dict[frozenset[tuple[str, Any]], list[Group]] = {}
    for other in among:
        if other.baseline == name:
            baselines.setdefault(other.outside(name), []).append(other)
    found: list[Group | None] = []
    for group in groups:
        alike = baselines.get(group.outside(name), []) if baselines and group.baseline != name else []
        shared = [len(group.finished.keys() & other.finished.keys()) for other in alike]
        found.append(alike[shared.index(max(shared))] if alike else None)
    return found


def differences(group: Group, baseline: Group) -> list[str]:
    """The config paths in which a baseline is not its group's baseline though it may not differ there."""
    assert baseline.baseline is not None
    first, second = group.outside(baseline.baseline), baseline.outside(baseline.baseline)
    return sorted({path for path, _ in first ^ second})


def identity(run: RunRecord) -> frozenset[tuple[str, Any]]:
    """What of the config makes runs the same but for their seed: (dotted path, value). None is as good as absent."""
    return frozenset(
        (path, _hashable(value))
        for path, value in run.flat_config.items()
        if value is not None and value != {} and not (path + ".").startswith(_IGNORED)
    )


def _dotted(prefixes: Iterable[str]) -> tuple[str, ...]:
    return tuple(prefix + "." for prefix in prefixes)


_IGNORED = _dotted(IGNORED)


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, dict):  # inside a list
        return tuple(sorted((str(key), _hashable(item)) for key, item in value.items()))
    return value
