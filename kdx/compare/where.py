"""Selection of runs by their config (`--where key=value`)."""

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
    """A condition `key=value` on a config; the value is written as in an override and may be a glob."""

    key: str
    value: str

    def holds(self, run: RunRecord) -> bool:
        """Return whether the run meets the condition. A config node is compared by its class name, e.g. optimizer=SGD."""
        flat = run.flat_config
        setting = flat.get(self.key, flat.get(f"{self.key}._target_"))
        if f"{self.key}._target_" in flat:
            setting = str(setting).rpartition(".")[2]
        elif setting is None and any(path.startswith(self.key + ".") for path in flat):
            return self.value == "*"  # a node without a class has no name to compare
        if setting is None:
            return self.value in NOTHING
        if _is_number(setting, self.value):
            return _number(setting) == _number(self.value)
        return fnmatchcase(word(setting), self.value)


def parse(text: str) -> Condition:
    """Return the condition in "key=value".

    Raises:
        ValueError: If the text does not have this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"Invalid --where {text}: expected KEY=VALUE of the config, such as temperature.value=4")
    return Condition(key, value)


def choose(runs: Sequence[RunRecord], conditions: Sequence[Condition]) -> list[RunRecord]:
    """Return the runs that meet all conditions.

    Raises:
        ValueError: If no run has the key of a condition, or if no run meets all conditions.
    """
    for condition in conditions:
        paths: dict[str, None] = {}
        for run in runs:
            paths |= dict.fromkeys(run.flat_config)
        if condition.key not in paths and not any(path.startswith(condition.key + ".") for path in paths):
            raise ValueError(f"Unknown config key in --where {condition.key}.{nearest(condition.key, paths)}")
        matches = [run for run in runs if condition.holds(run)]
        if not matches:
            values = dict.fromkeys(word(run.flat_config.get(condition.key)) for run in runs if run.config)
            raise ValueError(f"No run matches --where {condition.key}={condition.value}.{nearest('', values, 'Values')}")
        runs = matches
    return list(runs)


def _is_number(setting: Any, text: str) -> bool:
    return isinstance(setting, int | float) and not isinstance(setting, bool) and _number(text) is not None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
