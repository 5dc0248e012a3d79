"""The words of kdx-tune that are none of kdx-train's: conf/tune.yaml, checked; and the metrics that a search may optimize."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import hydra
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from kdx.config.errors import ConfigError, invalid, nearest
from kdx.config.monitor import possible_names
from kdx.config.schema import RunConfig, to_plain
from kdx.metrics.names import OF_NETWORK, OF_PAIR
from kdx.ranges import Count, Number, explain
from kdx.run.study import PrunerName

Mode = Literal["min", "max"]
# Measured costs of a run that may be minimized, by their names in metrics.json.
COSTS = ("student/latency_ms_1", "student/latency_ms_batch", "student/parameters", "student/macs", "seconds", "energy_joules")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The values of conf/tune.yaml, which explains them."""

    n_trials: Count
    sampler: Literal["tpe", "gp", "nsgaii", "random"]
    pruner: PrunerName
    pruner_startup: Number
    pruner_warmup: Number
    objectives: dict[str, Mode] | None = field(default=None)


OWN = tuple(item.name for item in fields(Settings))


def is_own(word: str) -> bool:
    """Return whether an override is one of kdx-tune, and none of kdx-train."""
    return re.split(r"[.=]", word.lstrip("+~"), maxsplit=1)[0] in OWN


def settings(words: Sequence[str]) -> Settings:
    """Return the settings of kdx-tune with these overrides. ConfigError for an invalid value."""
    plain: Any = OmegaConf.to_container(hydra.compose("tune", list(words)))
    try:
        return TypeAdapter(Settings).validate_python(plain)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(invalid(key, plain.get(key, ""), explain(error))) from None


def objectives(settings: Settings, config: RunConfig) -> Mapping[str, Mode]:
    """Return the metrics that are optimized, with their directions: `objectives`, or else `monitor`.

    Raises:
        ConfigError: If a metric is of test or unknown, or if the worst value would be searched for.
    """
    if not settings.objectives:
        return {config.monitor: config.monitor_mode}
    available = [*possible_names(to_plain(config)), *COSTS]
    for name, mode in settings.objectives.items():
        if name.startswith("test/"):
            raise ConfigError(
                f"objectives: {name} is a metric of test, which selects nothing: use val/{name.removeprefix('test/')}"
            )
        if name not in available:
            raise ConfigError(
                f"objectives: unknown metric {name}.{nearest(name, available)} Available: {', '.join(available)}; "
                f"or add it with metrics=[{name.rpartition('/')[2]}]"
            )
        higher = False if name in COSTS else {**OF_NETWORK, **OF_PAIR}.get(name.rpartition("/")[2])
        if higher is not None and higher != (mode == "max"):
            best = "max" if higher else "min"
            raise ConfigError(f"objectives: {name}:{mode} searches for the worst value; use {name}:{best}")
    return settings.objectives
