"""Runs chosen by what their config says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from kdx.compare.labels import word
from kdx.compare.metric_selection import nearest
from kdx.compare.runs import RunRecord

NOTHING = ("none", "null")


@dataclass(frozen=True)
class Condition:
    """`key=value` of a config, the value as it would be typed in an override; it may be a glob."""

    key: str
    value: str

    def holds(self, run: RunRecord) -> bool:
        """Whether the run's config says so. A node counts by the name of its class: optimizer=SGD."""
        flat = run.flat_config
        found = flat.get(self.key, flat.get(f"{self.key}._target_"))
        if f"{self.key}._target_" in flat:
            found = str(found).rpartition(".")[2]
        elif found is None and any(path.startswith(self.key + ".") for path in flat):
            return self.value == "*"  # a node without a class: there is something, but it has no name
        if found is None:
            return self.value in NOTHING
        return _number(found) == _number(self.value) if _is_number(found, self.value) else fnmatchcase(word(found), self.value)


def parse(text: str) -> Condition:
    """The condition of "key=value". ValueError if it is none."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--where {text}: give a key of the config and its value, such as temperature.value=4")
    return Condition(key, value)


def choose(runs: Sequence[RunRecord], conditions: Sequence[Condition]) -> list[RunRecord]:
    """The runs that meet all conditions. ValueError if one has a key that no run has, or if none is left."""
    for condition in conditions:
        known: dict[str, None] = {}
        for run in runs:
            known |= dict.fromkeys(run.flat_config)
        if condition.key not in known and not any(path.startswith(condition.key + ".") for path in known):
            raise ValueError(f"--where {condition.key}: no run's config has that key.{nearest(condition.key, known)}")
        left = [run for run in runs if condition.holds(run)]
        if not left:
            values = dict.fromkeys(word(run.flat_config.get(condition.key)) for run in runs if run.config)
            raise ValueError(f"--where {condition.key}={condition.value}: no run is left.{nearest('', values, 'They have')}")
        runs = left
    return list(runs)


def _is_number(found: Any, text: str) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and _number(text) is not None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
