"""Charts of curves over epochs: a line per group (mean over seeds) with a band of ± one standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdx.compare.metric_names import titled, unit, what
from kdx.compare.page.charts import Chart, figure, first_shown, name_of, trace
from kdx.compare.page.material import Material, Points, System

MOST_TICKS = 10
MOST_POINTS = 150  # drawn per curve
BUDGET = 70_000  # numbers in all curves together; keeps the page small with hundreds of runs
CURVES = (
    "val/student/accuracy", "val/student/nll", "val/student/ece", "val/student/entropy", "val/student/brier", "val/agreement",
    "val/kl", "train/loss", "train/lr",
)  # fmt: skip
TRACES = ("temperature", "temperature_student", "temperature_teacher", "temperature_mean", "temperature_std", "lambda")


def training(material: Material) -> Chart | None:
    """Return the metrics on val and the training losses against the epoch."""
    return _chart(material, "curves", "Training curves", _names(material, CURVES, "train/loss_"))


def temperatures(material: Material) -> Chart | None:
    """Return the distillation temperature and what controls it against the epoch, if one changes during a run."""
    names = _names(material, tuple(f"train/{name}" for name in TRACES), "train/temperature")
    moving = [name for name in names if any(len({value for _, value in points}) > 1 for points in _all(material, name))]
    return _chart(material, "temperature-traces", "Distillation temperature during training", moving)


def _chart(material: Material, key: str, title: str, names: Sequence[str]) -> Chart | None:
    if not names:
        return None
    most = max(12, min(MOST_POINTS, BUDGET // (4 * len(names) * max(1, len(material.drawn)))))
    figures = {}
    for place, name in enumerate(names):
        lines = [line for system in material.drawn for line in _lines(material, system, name, most)]
        last = max((x for line in lines for x in line["x"]), default=0)
        whole = {"dtick": 1} if last <= MOST_TICKS else {}  # no half epochs
        figures[str(place)] = figure(lines, "epoch", what(name) + (f", {unit(name)}" if unit(name) else ""), xaxis=whole)
    note = (
        "Line: mean over the finished runs of a group, at the epochs that all of them have. "
        "Band: ± one standard deviation over seeds."
    )
    if any(system.others for system in material.drawn):
        note += " Dotted: unfinished runs."
    select, note = ("Metric", [titled(name) for name in names]), note + material.left_out
    return Chart(key, title, note, figures, [select], log=True, starts=first_shown(names))


def _names(material: Material, preferred: Sequence[str], prefix: str) -> list[str]:
    available = {name for curves in material.curves.values() for name, points in curves.items() if points}
    others = sorted(name for name in available if name.startswith(prefix) and name not in preferred)
    return [name for name in preferred if name in available] + others


def _all(material: Material, name: str) -> list[Points]:
    return [curves[name] for curves in material.curves.values() if name in curves]


def _lines(material: Material, system: System, name: str, most: int) -> list[dict[str, Any]]:
    """Return the Plotly traces of a group: its band, its mean, and its unfinished runs."""
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
        mode, marker = "lines" if len(x) > 1 else "lines+markers", {"color": color, "symbol": system.look.symbol}
        traces.append(trace(mode, means, hover, name=label, legendgroup=system.label, line=line, marker=marker))
    for run in system.others:
        some = [points(run)[i] for i in thin(len(points(run)), most)]
        if some:
            note = f"{label}, seed {run.seed} ({run.state})"
            line = {"color": color, "dash": "dot", "width": 1.3}
            hover = f"{note}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>"
            traces.append(trace("lines", some, hover, name=note, legendgroup=system.label, line=line))
    return traces


def average(curves: Sequence[Points]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (epochs, mean, standard deviation), each [E], at the E epochs that all curves have.

    The standard deviation is over curves with n - 1; it is 0 for a single curve.
    """
    if not curves:
        return np.empty(0), np.empty(0), np.empty(0)
    by_epoch = [dict(curve) for curve in curves]
    common = sorted(set.intersection(*(set(curve) for curve in by_epoch)))
    table = np.array([[curve[epoch] for epoch in common] for curve in by_epoch], np.float64)
    spread = table.std(0, ddof=1) if len(by_epoch) > 1 else np.zeros(len(common))
    return np.array(common, np.int64), table.mean(0) if len(common) else np.empty(0), spread


def thin(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices 0 to `count` - 1, evenly spaced, including the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
