"""The metrics that a run monitors: `monitor`, and those of its callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdx.config.errors import ConfigError, nearest
from kdx.metrics.names import OF_NETWORK, OF_PAIR

# Names that other tools use for a metric.
OTHER_WORDS = {"acc": "accuracy", "acc1": "accuracy", "top1": "accuracy", "loss": "nll"}


def check_monitors(config: Mapping[str, Any], names: Sequence[str], higher_is_better: Mapping[str, bool | None]) -> None:
    """Raise ConfigError if a monitored metric is not logged, or if the worst epoch would be selected by it.

    Args:
        config: The fields monitor, monitor_mode and callbacks of a run.
        names: The logged metrics, such as val/student/accuracy.
        higher_is_better: Directions of metrics, by the last part of their names; None if neither direction is better.
    """
    for key, monitor, mode_key, mode in _monitored(config):
        name = monitor.rpartition("/")[2]
        if monitor not in names:
            hint = nearest(f"val/student/{OTHER_WORDS.get(name, name)}", list(names))
            raise ConfigError(
                f"Unknown metric {key}={monitor}.{hint} Available: {', '.join(names)}; or add it with metrics=[{name}]"
            )
        better = higher_is_better.get(name)
        if better is not None and better != (mode == "max"):
            best = "max" if better else "min"
            raise ConfigError(f"{key}={monitor} with {mode_key}={mode} selects the worst epoch: set {mode_key}={best}")


def possible_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics that the run may log on val; which of them depends on data and classes."""
    added, peers = list(config["metrics"]), list((config["peers"] or {}).get("members", {}))
    of_network = [*OF_NETWORK, *added]
    names = [f"val/{network}/{name}" for network in ("student", *(f"peer_{peer}" for peer in peers)) for name in of_network]
    if peers:
        names += [f"val/teacher/{name}" for name in of_network]
    if config["teacher"] is not None or peers:
        names += [f"val/{name}" for name in (*OF_PAIR, *added)]
        names += [f"val/peer_{peer}/{name}" for peer in peers for name in OF_PAIR]
    return names


def _monitored(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, metric, key of the mode, mode) of the run and of each callback that monitors a metric."""
    yield "monitor", config["monitor"], "monitor_mode", config["monitor_mode"]
    for name, node in (config["callbacks"] or {}).items():
        if isinstance(node, Mapping) and node.get("monitor") is not None:
            of_lightning = str(node.get("_target_", "")).startswith("pytorch_lightning.")  # where the default is min
            default = "min" if of_lightning else config["monitor_mode"]
            if node["monitor"] != config["monitor"] or node.get("mode", default) != config["monitor_mode"]:
                yield f"callbacks.{name}.monitor", node["monitor"], f"callbacks.{name}.mode", node.get("mode", default)
