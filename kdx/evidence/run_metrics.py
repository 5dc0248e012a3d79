"""Read final metrics and curves of finished runs (metrics.json, metrics.csv), and check metric names before a run."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdx.config.errors import ConfigError, nearest
from kdx.experiment.build import Parts
from kdx.experiment.final_metrics import assessed_networks
from kdx.metrics.selection import CALIBRATION, applicable
from kdx.metrics.suite import Suite
from kdx.types import Progress

END = "end"


def check_metric(metric: str, parts: Parts, path: str) -> None:
    """Check that a run writes the metric.

    Args:
        metric: NAME in metrics.json, or NAME@end or NAME@EPOCH in metrics.csv.
        parts: The objects of the run.
        path: The config path of the claim, for the message.

    Raises:
        ConfigError: If it does not; the message suggests the nearest name.
    """
    name, at, when = metric.partition("@")
    if at and when != END and not (when.isdigit() and 0 < int(when) <= int(parts.config.trainer["max_epochs"])):
        last = int(parts.config.trainer["max_epochs"])
        raise ConfigError(f"{path}: invalid epoch '{when}' in '{metric}': give a number from 1 to {last}, or {END}")
    available = list(_columns(parts) if at else _finals(parts))
    if name not in available:
        raise ConfigError(f"{path}: unknown metric '{name}'.{nearest(name, available)} Available: {', '.join(available)}.")


def _measured(parts: Parts) -> list[str]:
    teacher = parts.config.teacher is not None
    return Suite(parts.num_classes, parts.metrics, teacher=teacher, labels=parts.source.labels).names


def _finals(parts: Parts) -> Iterator[str]:
    labels = parts.source.labels
    measured = applicable(parts.metrics, parts.num_classes, labels=labels, teacher=False)
    what = [*measured, *(CALIBRATION if labels else ())]
    assessed = [f"{network}/{name}" for network in assessed_networks(parts.config, labels=labels) for name in what]
    for split in ("val", "test"):
        yield from (f"{split}/{name}" for name in dict.fromkeys([*_measured(parts), *assessed]))
    yield from ("seconds", "images_per_second")


def _columns(parts: Parts) -> Iterator[str]:
    yield from ("train/loss", "train/lr", *(f"train/loss_{name}" for name in parts.config.losses))
    if parts.temperature is not None:
        yield from ("train/temperature", "train/temperature_teacher", "train/temperature_student")
        yield from (f"train/{name}" for name in parts.temperature.telemetry(Progress(0.0, 0)))
    yield from (f"val/{name}" for name in _measured(parts))


@functools.lru_cache(maxsize=4096)
def report(folder: Path) -> Mapping[str, Any]:
    """Return the content of metrics.json: "metrics", "selection", "provenance" and others."""
    content: Mapping[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return content


@functools.lru_cache(maxsize=4096)
def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """Return (epoch, value) pairs of a column of metrics.csv, with the last value of each epoch; empty if there are none."""
    values = {int(row["epoch"]): float(row[name]) for row in _rows(folder) if row.get(name)}
    return sorted(values.items())


def value(folder: Path, metric: str) -> float:
    """Return the value of `metric` (see `check_metric`) in a finished run.

    Raises:
        ValueError: If the metric is missing or not finite.
    """
    name, at, when = metric.partition("@")
    if not at:
        number = report(folder)["metrics"].get(name, math.nan)
    else:
        points = curve(folder, name)
        last = points[-1][0] if points else -1
        number = dict(points).get(last if when == END else int(when), math.nan)
    if not math.isfinite(number):
        raise ValueError(f"{metric} of {folder} is {number}: check its metrics.csv and train.log")
    return float(number)
