"""Reads finished runs: final numbers from metrics.json, curves from metrics.csv; and which names there are to be read."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdx.config.check import ConfigError, nearest
from kdx.experiment.build import Parts, count_classes
from kdx.experiment.final_metrics import cast
from kdx.metrics.selection import CALIBRATION, applicable
from kdx.metrics.suite import Suite
from kdx.types import Progress

END = "end"


def check_metric(metric: str, cfg: DictConfig, parts: Parts, path: str) -> None:
    """ConfigError if a run of `cfg` writes no such metric; the message names the nearest that it writes."""
    name, at, when = metric.partition("@")
    if at and when != END and not (when.isdigit() and int(when) < int(cfg.trainer.max_epochs)):
        last = int(cfg.trainer.max_epochs) - 1
        raise ConfigError(f"{path}: '{metric}' asks for epoch '{when}': give a number from 0 to {last}, or {END}")
    known = list(_columns(cfg, parts) if at else _finals(cfg, parts))
    if name not in known:
        raise ConfigError(f"{path}: its runs write no metric '{name}'.{nearest(name, known)} They write: {', '.join(known)}.")


def _measured(cfg: DictConfig, parts: Parts) -> list[str]:
    teacher = cfg.teacher is not None
    return Suite(count_classes(cfg, parts), parts.metrics, teacher=teacher, labels=parts.source.labels).names


def _finals(cfg: DictConfig, parts: Parts) -> Iterator[str]:
    labels = parts.source.labels
    what = [
        *applicable(parts.metrics, count_classes(cfg, parts), labels=labels, teacher=False),
        *(CALIBRATION if labels else ()),
    ]
    assessed = [f"{who}/{name}" for who in cast(cfg, labels=labels) for name in what]
    for split in ("val", "test"):
        yield from (f"{split}/{name}" for name in dict.fromkeys([*_measured(cfg, parts), *assessed]))
    yield from ("seconds", "images_per_second")


def _columns(cfg: DictConfig, parts: Parts) -> Iterator[str]:
    yield from ("train/loss", "train/lr", *(f"train/loss_{name}" for name in cfg.losses))
    if parts.temperature is not None:
        yield from ("train/temperature", "train/temperature_teacher", "train/temperature_student")
        yield from (f"train/{name}" for name in parts.temperature.telemetry(Progress(0.0, 0)))
    yield from (f"val/{name}" for name in _measured(cfg, parts))


@functools.lru_cache(maxsize=4096)
def report(folder: Path) -> Mapping[str, Any]:
    """What metrics.json says: metrics, selection, provenance."""
    found: Mapping[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


@functools.lru_cache(maxsize=4096)
def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """(epoch, value) of a column of metrics.csv, the last value that each epoch wrote; empty if there is none."""
    values = {int(row["epoch"]): float(row[name]) for row in _rows(folder) if row.get(name)}
    return sorted(values.items())


def value(folder: Path, metric: str) -> float:
    """The number that `metric` names in a finished run. ValueError if it is not there, or not finite."""
    name, at, when = metric.partition("@")
    if not at:
        number = report(folder)["metrics"].get(name, math.nan)
    else:
        points = curve(folder, name)
        last = points[-1][0] if points else -1
        number = dict(points).get(last if when == END else int(when), math.nan)
    if not math.isfinite(number):
        raise ValueError(f"{metric} of {folder} is {number}: look into its metrics and train.log")
    return float(number)
