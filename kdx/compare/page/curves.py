"""Curves over epochs: a line per group, the mean of its seeds, with a band of one standard deviation either side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdx.compare.metric_names import titled, unit, what
from kdx.compare.page.charts import Chart, figure, name_of, trace
from kdx.compare.page.material import Material, Points, System

MOST = 150  # points of a curve that are drawn
BUDGET = 100_000  # numbers in all curves together, so that the page stays small with hundreds of runs
WANTED = (
    "val/student/accuracy", "val/student/nll", "val/student/ece", "val/student/entropy", "val/student/brier", "val/agreement",
    "val/kl", "train/loss", "train/lr",
)  # fmt: skip
TRACES = ("temperature", "temperature_student", "temperature_teacher", "temperature_mean", "temperature_std", "lambda")


def training(material: Material) -> Chart | None:
    """Metrics on val and the losses, against the epoch."""
    return _chart(material, "curves", "Training curves", _names(material, WANTED, "train/loss_"))


def temperatures(material: Material) -> Chart | None:
    """The distillation temperature and what drives it, against the epoch; and the calibration temperature of each group."""
    names = _names(material, tuple(f"train/{name}" for name in TRACES), "train/temperature")
    moving = [name for name in names if len({value for values in _all(material, name) for _, value in values}) > 1]
    return _chart(material, "temperature-traces", "Temperature while training", moving)


def _chart(material: Material, key: str, title: str, names: Sequence[str]) -> Chart | None:
    if not names:
        return None
    most = max(12, min(MOST, BUDGET // (4 * len(names) * max(1, len(material.drawn)))))
    figures = {}
    for place, name in enumerate(names):
        lines = [line for system in material.drawn for line in _lines(material, system, name, most)]
        figures[str(place)] = figure(lines, "epoch", what(name) + (f", {unit(name)}" if unit(name) else ""))
    note = (
        "Line: mean over the finished runs of a group, at the epochs that all have. Band: ± one standard deviation of a seed."
    )
    if any(system.others for system in material.systems):
        note += " Dotted: runs that go on or were stopped."
    return Chart(key, title, note + material.left_out, figures, [("Metric", [titled(name) for name in names])], log=True)


def _names(material: Material, wanted: Sequence[str], more: str) -> list[str]:
    there = {name for curves in material.curves.values() for name, points in curves.items() if points}
    return [name for name in wanted if name in there] + sorted(n for n in there if n.startswith(more) and n not in wanted)


def _all(material: Material, name: str) -> list[Points]:
    return [curves[name] for curves in material.curves.values() if name in curves]


def _lines(material: Material, system: System, name: str, most: int) -> list[dict[str, Any]]:
    """Plotly traces of a group: its band, its mean, and its unfinished runs."""
    color, dash = system.look.color, system.look.dash
    label = name_of(system.short)
    traces: list[dict[str, Any]] = []

    def points(run: Any) -> Points:
        return material.curves.get(str(run.path), {}).get(name, ())

    epochs, mean, spread = average([points(run) for run in system.done if points(run)])
    if len(epochs):
        keep = thin(len(epochs), most)
        x, y, half = epochs[keep], mean[keep], spread[keep]
        if half.any():
            edge = [
                *zip(x.tolist(), (y + half).tolist(), strict=True),
                *zip(x[::-1].tolist(), (y - half)[::-1].tolist(), strict=True),
            ]
            filled: dict[str, Any] = {"fill": "toself", "fillcolor": system.look.soft, "line": {"width": 0}}
            traces.append(trace("lines", edge, showlegend=False, legendgroup=system.label, **filled))
        hover = f"{label}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>"
        line: dict[str, Any] = {"color": color, "dash": dash, "width": 2}
        means = zip(x.tolist(), y.tolist(), strict=True)
        traces.append(trace("lines", means, hover, name=label, legendgroup=system.label, line=line))
    for run in system.others:
        some = [points(run)[i] for i in thin(len(points(run)), most)]
        if some:
            note = f"{label}, seed {run.seed} ({run.state})"
            line = {"color": color, "dash": "dot", "width": 1.3}
            hover = f"{note}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>"
            traces.append(trace("lines", some, hover, name=note, legendgroup=system.label, line=line))
    return traces


def average(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(epochs, mean, standard deviation with n - 1) at the epochs that all curves have; the deviation of one curve is 0."""
    if not curves:
        return np.empty(0), np.empty(0), np.empty(0)
    found = [dict(curve) for curve in curves]
    common = sorted(set.intersection(*(set(curve) for curve in found)))
    table = np.array([[curve[epoch] for epoch in common] for curve in found], np.float64)
    spread = table.std(0, ddof=1) if len(found) > 1 else np.zeros(len(common))
    return np.array(common, np.int64), table.mean(0) if len(common) else np.empty(0), spread


def thin(count: int, most: int) -> list[int]:
    """At most `most` places out of `count`, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
