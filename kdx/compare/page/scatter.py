"""Groups as points: all seeds of a metric, student against teacher entropy, and what accuracy and calibration cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdx.compare.metric_names import direction, finite, titled, unit, what
from kdx.compare.metric_selection import added_metrics
from kdx.compare.page.charts import NEUTRAL, Chart, Figure, figure, name_of, trace
from kdx.compare.page.material import MOST_GROUPS, Material, System

SEEN = ("student/accuracy", "student/ece", "student/nll", "student/entropy", "student/brier", "agreement", "kl")
GAINS = ("student/accuracy", "student/ece", "student/nll")
COST_AXES = (
    "student/parameters",
    "student/macs",
    "student/latency_ms_1",
    "student/latency_ms_batch",
    "seconds",
    "energy_joules",
)
HOVER = "%{text}<br>teacher %{x:.4g}, student %{y:.4g} nats<extra>"


def seeds(material: Material) -> Chart | None:
    """A row per group: every seed as a dot, the mean as a line. None for a single group."""
    shown = [system for system in material.drawn if system.done]
    names = [
        name
        for metric in (*SEEN, *added_metrics(material.done))
        if any(system.values(name := f"{material.split}/{metric}") for system in shown)
    ]
    if len(shown) < 2 or not names:
        return None
    figures = {str(place): _strip(shown, name) for place, name in enumerate(names)}
    note = "A dot is a seed; the line is the mean of the group."
    return Chart(
        "seeds", "Groups at a glance", note + material.left_out, figures, [("Metric", [titled(name) for name in names])]
    )


def _strip(shown: Sequence[System], name: str) -> Figure:
    rows = [(system, system.values(name)) for system in shown]
    rows = [(system, values) for system, values in rows if values]
    traces: list[Any] = []
    for i, (system, values) in enumerate(rows):
        mean = float(np.mean(values))
        label = name_of(system.short)
        line = {"color": system.look.color, "width": 2.5}
        dots = {"color": system.look.color, "size": 9, "opacity": 0.65, "symbol": system.look.symbol}
        ends = [(mean, i - 0.32), (mean, i + 0.32)]
        traces.append(trace("lines", ends, f"{label}: mean %{{x:.4g}}<extra></extra>", line=line))
        traces.append(trace("markers", [(v, i) for v in values], f"{label}: %{{x:.4g}}<extra>a seed</extra>", marker=dots))
    axis: dict[str, Any] = {
        "tickmode": "array",
        "tickvals": list(range(len(rows))),
        "ticktext": [name_of(s.short, 34) for s, _ in rows],
    }
    axis |= {"range": [len(rows) - 0.5, -0.5], "showgrid": False}
    height: dict[str, Any] = {"height": 70 + 30 * len(rows)} if len(rows) > 11 else {}
    return figure(traces, what(name) + (f", {unit(name)}" if unit(name) else ""), yaxis=axis, **height)


def entropy(material: Material) -> Chart | None:
    """Student's entropy against the teacher's, a point per run, with the line on which both are equally certain."""
    student, teacher = f"{material.split}/student/entropy", f"{material.split}/teacher/entropy"
    traces: list[Any] = []
    most = 0.0
    for system in material.systems:
        found = [(finite(run.metrics, teacher), finite(run.metrics, student), run.seed) for run in system.done]
        points = [(x, y, seed) for x, y, seed in found if x is not None and y is not None]
        if points:
            most = max([most, *(max(x, y) for x, y, _ in points)])
            label = name_of(system.short)
            dots = {"color": system.look.color, "size": 9, "opacity": 0.75, "symbol": system.look.symbol}
            told = [f"seed {seed}" for _, _, seed in points]
            pairs = [(x, y) for x, y, _ in points]
            traces.append(trace("markers", pairs, f"{HOVER}{label}</extra>", name=label, text=told, marker=dots))
    if not traces:
        return None
    line = trace("lines", [(0, 0), (most * 1.05, most * 1.05)], line={"color": "#999999", "dash": "dash", "width": 1})
    note = "A point is a run. Above the dashed line the student is less certain than its teacher, below it more."
    labels = ("entropy of the teacher, nats", "entropy of the student, nats")
    drawing = figure([line, *traces], *labels, xaxis={"rangemode": "tozero"}, yaxis={"rangemode": "tozero"})
    return Chart("entropy", "Entropy of student and teacher", note, {"0": drawing})


def pareto(material: Material) -> Chart | None:
    """Accuracy and calibration against each cost that was measured; a line joins what nothing else beats in both."""
    there = {name for run in material.done for name in run.metrics}
    costs = [name for name in COST_AXES if name in there]
    gains = [name for gain in GAINS if (name := f"{material.split}/{gain}") in there]
    if len([system for system in material.systems if system.done]) < 2 or not costs or not gains:
        return None
    figures = {f"{i},{j}": _trade(material, cost, gain) for i, cost in enumerate(costs) for j, gain in enumerate(gains)}
    options = [("Quality", [titled(gain) for gain in gains])]
    note = "A point is a group's mean, the bar ± one standard deviation. The line joins the groups that no other beats in both."
    note += " The open diamond is a teacher, which is not in the line."
    return Chart("pareto", "Quality and cost", note, figures, [("Cost", [titled(cost) for cost in costs]), *options])


def _trade(material: Material, cost: str, gain: str) -> Figure:
    points = [(system, system.mean(cost), system.mean(gain)) for system in material.systems]
    found = [(system, x, y) for system, x, y in points if x is not None and y is not None]
    sign = -1.0 if direction(gain, material.higher_is_better) == "less" else 1.0
    front = non_dominated([(x, sign * y) for _, x, y in found])
    line = sorted((found[i][1], found[i][2]) for i in front)
    front_line = {"color": NEUTRAL, "width": 1.2, "dash": "dot"}
    traces = [trace("lines", line, line=front_line)]
    if len(found) <= MOST_GROUPS:
        traces += [_points([entry], gain) | {"name": name_of(entry[0].short)} for entry in found]
    else:
        traces.append(_points(found, gain))
    teachers = _teachers(material, cost, gain)
    if teachers:
        mark = {"color": NEUTRAL, "size": 12, "symbol": "diamond-open", "line": {"width": 2}}
        traces.append(trace("markers", teachers, "teacher<br>%{x:.4s}, %{y:.4g}<extra></extra>", name="teacher", marker=mark))
    scale = {"type": "log", "tickformat": "~s", "nticks": 7}
    label = what(gain) + (f", {unit(gain)}" if unit(gain) else "")
    return figure(traces, what(cost) + (f", {unit(cost)}" if unit(cost) else ""), label, xaxis=scale)


def _points(found: Sequence[tuple[System, float, float]], gain: str) -> dict[str, Any]:
    """One trace of a point per group, with ± one standard deviation."""
    values = [system.values(gain) for system, _, _ in found]
    spread = [float(np.std(those, ddof=1)) if len(those) > 1 else 0.0 for those in values]
    looks = [system.look for system, _, _ in found]
    marker: dict[str, Any] = {"color": [look.color for look in looks], "symbol": [look.symbol for look in looks]}
    if len(looks) == 1:
        marker = {"color": looks[0].color, "symbol": looks[0].symbol}
    bars = {"type": "data", "array": spread, "color": looks[0].color if len(looks) == 1 else NEUTRAL, "width": 3}
    return trace(
        "markers",
        [(x, y) for _, x, y in found],
        "%{text}<br>%{x:.4s}, %{y:.4g}<extra></extra>",
        text=[f"{name_of(system.short)}, n = {len(those)}" for (system, _, _), those in zip(found, values, strict=True)],
        marker={**marker, "size": 12},
        error_y={**bars, "thickness": 1.2},
    )


def _teachers(material: Material, cost: str, gain: str) -> list[tuple[float, float]]:
    """(cost, quality) of the teachers, each once."""
    if not cost.startswith("student/"):
        return []
    names = cost.replace("student/", "teacher/"), gain.replace("/student/", "/teacher/")
    pairs = {tuple(finite(run.metrics, name) for name in names) for run in material.done}
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the (cost, gain) for which no other point costs no more and gains no less, and is better in one of the two."""
    return [
        i
        for i, (cost, gain) in enumerate(points)
        if not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
    ]
