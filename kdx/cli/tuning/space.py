"""The space of a search: keys with several values, in Hydra's grammar of sweeps, as Optuna's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from kdx.config.errors import ConfigError

Values = Mapping[str, Any]  # plain data: {"choices": [text, ...]}, or {"low", "high", "log", "step", "whole"}
EXAMPLE = "temperature.value='interval(1,20)', network@student=cifar_resnet8,cifar_resnet20, or hparams_search=digits_optuna"

DIGITS = 5  # more cannot be told apart in a run, and are hard to read in its command


@dataclass(frozen=True)
class Space:
    """Overrides with one value, in their order, and the values of the others by key."""

    fixed: tuple[str, ...]
    swept: Mapping[str, Values]

    def distributions(self) -> dict[str, Any]:
        """Return Optuna's distribution of each key."""
        return {key: _distribution(values) for key, values in self.swept.items()}

    def words(self, point: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the overrides of the trial at a point, which has a value by key; numbers with DIGITS significant digits."""
        return (*self.fixed, *(f"{key}={_text(value)}" for key, value in point.items()))

    def corners(self) -> list[tuple[str, ...]]:
        """Return the overrides of two points: the first values of all keys, and the last ones."""
        ends = [{key: _ends(values)[place] for key, values in self.swept.items()} for place in (0, 1)]
        return [self.words(point) for point in ends]


def space(overrides: Sequence[Override]) -> Space:
    """Return the space that overrides describe; a later one of a key replaces an earlier one.

    Raises:
        ConfigError: If no key has several values, or if the values of a key cannot be searched.
    """
    by_key = {override.get_key_element(): override for override in overrides}
    swept = {key: _values(key, override) for key, override in by_key.items() if override.is_sweep_override()}
    if not swept:
        raise ConfigError(f"Nothing to search: give at least one key several values, such as {EXAMPLE}")
    return Space(tuple(str(override.input_line) for key, override in by_key.items() if key not in swept), swept)


def _values(key: str, override: Override) -> Values:
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not low < high:
            raise ConfigError(f"Invalid interval of {key}: {low} to {high}; expected interval(LOW,HIGH) with LOW < HIGH")
        whole = isinstance(low, int) and isinstance(high, int)
        return _numbers(key, low, high, log="log" in value.tags, whole=whole)
    if isinstance(value, RangeSweep):
        values = list(value.range())
        if not values:
            raise ConfigError(f"Empty range of {key}; expected range(START,STOP) with START < STOP")
        whole = all(isinstance(number, int) for number in values)
        low, high = min(values), max(values)
        log = "log" in value.tags
        return _numbers(key, low, high, log=log, whole=whole, step=None if log else abs(value.step or 1))
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise ConfigError(f"No values of {key}; expected several, such as {key}=A,B")
    return {"choices": choices}


def _numbers(key: str, low: float, high: float, *, log: bool, whole: bool, step: float | None = None) -> Values:
    if log and not low > 0:
        raise ConfigError(f"tag(log,...) of {key} needs values above 0, got {low}")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"Invalid limits of {key}: {low} to {high}; expected finite numbers")
    return {"low": low, "high": high, "log": log, "whole": whole, "step": step}


def _distribution(values: Values) -> Any:
    from optuna import distributions

    if "choices" in values:
        return distributions.CategoricalDistribution(values["choices"])
    low, high, log, step = (values[name] for name in ("low", "high", "log", "step"))
    if values["whole"]:
        return distributions.IntDistribution(low, high, log=log, step=step or 1)
    return distributions.FloatDistribution(low, high, log=log, step=step)


def _text(value: Any) -> str:
    return str(float(f"{value:.{DIGITS}g}")) if isinstance(value, float) else str(value)


def _ends(values: Values) -> tuple[Any, Any]:
    choices = values.get("choices")
    return (choices[0], choices[-1]) if choices else (values["low"], values["high"])
