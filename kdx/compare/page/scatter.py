"""Charts of groups as points: a metric of all seeds, student entropy against teacher entropy, and quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdx.compare.metric_names import direction, finite, titled, unit, what
from kdx.compare.metric_selection import added_metrics
from kdx.compare.page.charts import NEUTRAL, Chart, Figure, figure, first_shown, log_axis, name_of, trace
from kdx.compare.page.material import MOST_GROUPS, Material, System

METRICS = ("student/accuracy", "student/ece", "student/nll", "student/entropy", "student/brier", "agreement", "kl")
GAINS = ("student/accuracy", "student/ece", "student/nll")
COST_AXES = (
    "student/parameters",
    "student/macs",
    "student/latency_ms_1",
    "student/latency_ms_batch",
    "seconds",
    "energy_joules",
)
DATA_WIDTH = 200  # px beside the labels of a row
HOVER = "%{text}<br>teacher %{x:.4g}, student %{y:.4g} nats<extra>"


def seeds(material: Material) -> Chart | None:
    """Return a row per group: every seed as a dot, the mean as a line. None if there are fewer than two groups."""
    systems = [system for system in material.drawn if system.done]
    quality = (*METRICS, *added_metrics(material.done))
    names = [name for metric in quality if any(system.values(name := f"{material.split}/{metric}") for system in systems)]
    if len(systems) < 2 or not names:
        return None
    figures = {str(place): _strip(systems, name) for place, name in enumerate(names)}
    note = "Dots: seeds. Line: mean of the group."
    select, note = ("Metric", [titled(name) for name in names]), note + material.left_out
    return Chart("seeds", "Metrics by group", note, figures, [select], starts=first_shown(names))


def _strip(systems: Sequence[System], name: str) -> Figure:
    rows = [(system, system.values(name)) for system in systems]
    rows = [(system, values) for system, values in rows if values]
    traces: list[Any] = []
    for i, (system, values) in enumerate(rows):
        mean = float(np.mean(values))
        label = name_of(system.short)
        line = {"color": system.look.color, "width": 2.5}
        dots = {"color": system.look.color, "size": 9, "opacity": 0.65, "symbol": system.look.symbol}
        ends = [(mean, i - 0.32), (mean, i + 0.32)]
        traces.append(trace("lines", ends, f"{label}: mean %{{x:.4g}}<extra></extra>", line=line))
        traces.append(trace("markers", [(v, i) for v in values], f"{label}: %{{x:.4g}}<extra>one seed</extra>", marker=dots))
    axis: dict[str, Any] = {
        "tickmode": "array",
        "tickvals": list(range(len(rows))),
        "ticktext": [name_of(s.short, 34) for s, _ in rows],
    }
    axis |= {"range": [len(rows) - 0.5, -0.5], "showgrid": False}
    height: dict[str, Any] = {"height": 70 + 30 * len(rows)} if len(rows) > 11 else {}
    longest = max(map(len, axis["ticktext"]), default=0)
    room = {"minWidth": 7 * longest + DATA_WIDTH}  # px; on a narrow screen with long labels the figure scrolls
    x = what(name) + (f", {unit(name)}" if unit(name) else "")
    return figure(traces, x, yaxis=axis, meta=room, **height)


def entropy(material: Material) -> Chart | None:
    """Return student entropy against teacher entropy, a point per run, with the line of equal entropy."""
    student, teacher = f"{material.split}/student/entropy", f"{material.split}/teacher/entropy"
    traces: list[Any] = []
    most = 0.0
    for system in material.rows:
        entropies = [(finite(run.metrics, teacher), finite(run.metrics, student), run.seed) for run in system.done]
        points = [(x, y, seed) for x, y, seed in entropies if x is not None and y is not None]
        if points:
            most = max([most, *(max(x, y) for x, y, _ in points)])
            label = name_of(system.short)
            dots = {"color": system.look.color, "size": 9, "opacity": 0.75, "symbol": system.look.symbol}
            texts = [f"seed {seed}" for _, _, seed in points]
            pairs = [(x, y) for x, y, _ in points]
            traces.append(trace("markers", pairs, f"{HOVER}{label}</extra>", name=label, text=texts, marker=dots))
    if not traces:
        return None
    line = trace("lines", [(0, 0), (most * 1.05, most * 1.05)], line={"color": "#999999", "dash": "dash", "width": 1})
    note = "Points: runs. Dashed: equal entropy. Above it, the student has a higher entropy: it is less confident."
    labels = ("teacher entropy, nats", "student entropy, nats")
    drawing = figure([line, *traces], *labels, xaxis={"rangemode": "tozero"}, yaxis={"rangemode": "tozero"})
    return Chart("entropy", "Student and teacher entropy", note, {"0": drawing})


def pareto(material: Material) -> Chart | None:
    """Return accuracy and calibration against each measured cost, with the Pareto front; None for fewer than two groups."""
    available = {name for run in material.done for name in run.metrics}
    costs = [name for name in COST_AXES if name in available]
    gains = [name for gain in GAINS if (name := f"{material.split}/{gain}") in available]
    if len([system for system in material.rows if system.done]) < 2 or not costs or not gains:
        return None
    figures = {f"{i},{j}": _trade(material, cost, gain) for i, cost in enumerate(costs) for j, gain in enumerate(gains)}
    selects = [("Cost", [titled(cost) for cost in costs]), ("Quality", [titled(gain) for gain in gains])]
    note = "Points: mean of a group, with ± one standard deviation over seeds. Dotted line: Pareto front (no other group is "
    note += "better in both cost and quality). Open diamonds: teachers, which are not part of the front." + material.unlisted
    if material.left_out:
        note += f"{material.left_out} The front is that of all, and drawn as well."
    starts = [f"0,{place}" for place in first_shown(gains)]
    return Chart("pareto", "Quality and cost", note, figures, selects, starts=starts)


def _trade(material: Material, cost: str, gain: str) -> Figure:
    points = [(system, system.mean(cost), system.mean(gain)) for system in material.rows]
    measured = [(system, x, y) for system, x, y in points if x is not None and y is not None]
    sign = -1.0 if direction(gain, material.higher_is_better) == "less" else 1.0
    front = non_dominated([(x, sign * y) for _, x, y in measured])
    line = sorted((measured[i][1], measured[i][2]) for i in front)
    if len(measured) > MOST_GROUPS:
        kept = {system.label for system in material.drawn} | {measured[i][0].label for i in front}
        measured = [entry for entry in measured if entry[0].label in kept]
    front_line = {"color": NEUTRAL, "width": 1.2, "dash": "dot"}
    traces = [trace("lines", line, line=front_line)]
    if len(measured) <= MOST_GROUPS:
        traces += [_points([entry], gain) | {"name": name_of(entry[0].short)} for entry in measured]
    else:
        traces.append(_points(measured, gain))
    teachers = _teachers(material, cost, gain)
    if teachers:
        mark = {"color": NEUTRAL, "size": 12, "symbol": "diamond-open", "line": {"width": 2}}
        traces.append(trace("markers", teachers, "teacher<br>%{x:.4s}, %{y:.4g}<extra></extra>", name="teacher", marker=mark))
    scale = log_axis([x for _, x, _ in measured] + [x for x, _ in teachers], tickformat="~s")
    label = what(gain) + (f", {unit(gain)}" if unit(gain) else "")
    return figure(traces, what(cost) + (f", {unit(cost)}" if unit(cost) else ""), label, xaxis=scale)


def _points(measured: Sequence[tuple[System, float, float]], gain: str) -> dict[str, Any]:
    """Return one trace with a point per group and error bars of ± one standard deviation."""
    values = [system.values(gain) for system, _, _ in measured]
    spread = [float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0 for seeds in values]
    looks = [system.look for system, _, _ in measured]
    marker: dict[str, Any] = {"color": [look.color for look in looks], "symbol": [look.symbol for look in looks]}
    if len(looks) == 1:
        marker = {"color": looks[0].color, "symbol": looks[0].symbol}
    bars = {"type": "data", "array": spread, "color": looks[0].color if len(looks) == 1 else NEUTRAL, "width": 3}
    return trace(
        "markers",
        [(x, y) for _, x, y in measured],
        "%{text}<br>%{x:.4s}, %{y:.4g}<extra></extra>",
        text=[f"{name_of(system.short)}, n = {len(seeds)}" for (system, _, _), seeds in zip(measured, values, strict=True)],
        marker={**marker, "size": 12},
        error_y={**bars, "thickness": 1.2},
    )


def _teachers(material: Material, cost: str, gain: str) -> list[tuple[float, float]]:
    """Return (cost, quality) of the teachers, without duplicates."""
    if not cost.startswith("student/"):
        return []
    names = cost.replace("student/", "teacher/"), gain.replace("/student/", "/teacher/")
    runs = [run for system in material.rows for run in system.done]
    pairs = {tuple(finite(run.metrics, name) for name in names) for run in runs}
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto-optimal (cost, gain) pairs: low cost and high gain are better."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return sorted(front)
