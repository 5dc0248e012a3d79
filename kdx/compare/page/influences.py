"""Charts of metrics against a setting in which groups differ: resolution, temperature, number of epochs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdx.compare.groups import identity
from kdx.compare.metric_names import short, titled, unit, what
from kdx.compare.page.charts import NEUTRAL, Chart, Look, figure, first_shown, look, name_of, ticks, trace
from kdx.compare.page.material import BEST, MOST_GROUPS, Material, System, shown

METRICS = ("student/accuracy", "student/ece", "student/nll", "student/entropy")
NOTE = (
    "Dots: seeds. Line: mean over seeds; it connects groups that differ only in this setting. Other groups are not shown. "
    "Gray dotted line: the teacher, at its own resolution."
)
MOST_TEACHERS = 6
MOST_DASHED = 12  # groups whose students are shown at other resolutions: more lines hide those of the groups
OTHER_RESOLUTIONS = "same student, other resolutions"


def resolution(material: Material) -> Chart | None:
    """Return metrics against the student's resolution: over groups, and for one student tested at other resolutions."""
    return _chart(
        material, "resolution", "Student resolution", "student resolution, px", pixels, ("resolution.student",),
        NOTE + " Dashed: one student, tested at other resolutions than its training resolution.", within=True,
    )  # fmt: skip


def temperature(material: Material) -> Chart | None:
    """Return metrics against the distillation temperature; groups without one are horizontal lines."""
    note = NOTE + " Dashed horizontal lines: groups without a distillation temperature."
    title, axis = "Distillation temperature", "distillation temperature"
    return _chart(material, "temperature", title, axis, tau, ("temperature",), note, levels=True)


def patience(material: Material) -> Chart | None:
    """Return metrics against the number of training epochs."""
    drop = ("trainer.max_epochs",)
    return _chart(material, "patience", "Training length", "training epochs", _epochs, drop, NOTE)


def pixels(system: System) -> float | None:
    """Return the student's resolution, px; the largest of several."""
    side = system.group.runs[0].flat_config.get("resolution.student")
    sides = [value for value in map(_number, side if isinstance(side, list) else [side]) if value]
    return max(sides, default=None)


def tau(system: System) -> float | None:
    """Return the distillation temperature, if it is a constant."""
    return _number(system.group.runs[0].flat_config.get("temperature.value"))


def _epochs(system: System) -> float | None:
    return _number(system.group.runs[0].flat_config.get("trainer.max_epochs"))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _chart(
    material: Material, key: str, title: str, axis: str, x_of: Callable[[System], float | None], drop: Sequence[str],
    note: str, *, within: bool = False, levels: bool = False,
) -> Chart | None:  # fmt: skip
    """Return the chart; None if no metric has values at two or more positions of x."""
    figures: dict[str, Any] = {}
    names: list[str] = []
    for metric in METRICS:
        name = f"{material.split}/{metric}"
        at = {i: x for i, system in enumerate(material.rows) if (x := x_of(system)) and system.values(name)}
        by_resolution = [metric_by_resolution(system, name) for system in material.rows] if within else []
        if len(set(at.values()) | {x for means in by_resolution for x in means}) < 2:
            continue
        traces = []
        together = families([material.rows[i] for i in at], drop)
        lines = [members for members in together if len({x_of(system) for system in members}) > 1]
        lines = (lines or together)[:MOST_GROUPS]
        looks = {system.label: look(i) for i, members in enumerate(lines) for system in members}
        for members in lines:
            points = sorted(((x_of(system) or 0.0, system) for system in members), key=lambda pair: pair[0])
            traces += _line(points, name, drop, looks[members[0].label])
        tested = {system.label: means for system, means in zip(material.rows, by_resolution, strict=False) if len(means) > 1}
        for system in shown([system for system in material.rows if system.label in tested], BEST, MOST_DASHED):
            traces.append(_dashed(system, tested[system.label], looks.get(system.label, system.look)))
        span = sorted(at.values())
        level = [system for i, system in enumerate(material.rows if levels else ()) if i not in at and system.values(name)]
        traces += [_level(system, name, span, look(len(lines) + i)) for i, system in enumerate(level)]
        span = sorted({*span, *(x for means in by_resolution for x in means)})
        traces += _teachers([[(x_of(system) or 0.0, system) for system in members] for members in together], name, span)
        scale = ticks(span, title={"text": axis})
        figures[str(len(names))] = figure(traces, axis, what(name) + (f", {unit(name)}" if unit(name) else ""), xaxis=scale)
        names.append(name)
    if not figures:
        return None
    return Chart(key, title, note, figures, [("Metric", [titled(name) for name in names])], starts=first_shown(names))


def families(systems: Sequence[System], drop: Sequence[str]) -> list[list[System]]:
    """Return lists of groups whose configs differ only below the paths `drop` (and in values that groups ignore)."""
    by_rest: dict[frozenset[tuple[str, Any]], list[System]] = {}
    for system in systems:
        rest = frozenset((path, value) for path, value in identity(system.group.runs[0]) if not _under(path, drop))
        by_rest.setdefault(rest, []).append(system)
    return list(by_rest.values())


def _under(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def metric_by_resolution(system: System, name: str) -> dict[float, float]:
    """Return the mean over seeds of `<split>/student_at_<px>/<metric>` by px; empty if there is none.

    If there are such metrics, the value at the student's training resolution is included.
    """
    split, _, last = name.split("/")
    pattern = re.compile(rf"{split}/student_at_(\d+)/{last}")
    names = {metric for run in system.done for metric in run.metrics if pattern.fullmatch(metric)}
    means = {float(metric.split("/")[1].removeprefix("student_at_")): system.mean(metric) for metric in names}
    trained_at, mean = pixels(system), system.mean(name)
    if means and trained_at and mean is not None:
        means[trained_at] = mean
    return {x: y for x, y in sorted(means.items()) if y is not None}


def _line(members: Sequence[tuple[float, System]], name: str, drop: Sequence[str], style: Look) -> list[dict[str, Any]]:
    first = members[0][1]
    label = name_of(first.short if len(members) == 1 else without(first, drop))
    key = f"line {first.label}"
    dots = [(x, value) for x, system in members for value in system.values(name)]
    means = [(x, float(np.mean(system.values(name)))) for x, system in members]
    hover = [f"{name_of(system.short)}<br>mean of n = {len(system.values(name))}" for _, system in members]
    faint = {"color": style.color, "size": 6, "opacity": 0.4, "symbol": style.symbol}
    full = {"color": style.color, "size": 10, "symbol": style.symbol}
    return [
        trace("markers", dots, "%{y:.4g}<extra>one seed</extra>", marker=faint, showlegend=False, legendgroup=key),
        trace(
            "lines+markers", means, "%{text}: %{y:.4g}<extra></extra>", text=hover, name=label, legendgroup=key,
            marker=full, line={"color": style.color, "width": 2},
        ),
    ]  # fmt: skip


def without(system: System, drop: Sequence[str]) -> str:
    """Return the label of a group without the overrides that vary along the line; the run name if nothing is left."""
    parts = [part for part in system.label.split(" ") if not _under(part.partition("=")[0], drop)]
    return short(" ".join(parts)) or system.group.runs[0].name


def _dashed(system: System, points: dict[float, float], style: Look) -> dict[str, Any]:
    hover = f"{name_of(system.short)}, tested at %{{x}} px: %{{y:.4g}}<extra></extra>"
    marker = {"color": style.color, "size": 6, "symbol": style.symbol + "-open"}
    line = {"color": style.color, "dash": "dash", "width": 1.3}
    name = OTHER_RESOLUTIONS
    return trace("lines+markers", points.items(), hover, name=name, legendgroup=name, marker=marker, line=line)


def _level(system: System, name: str, span: Sequence[float], style: Look) -> dict[str, Any]:
    mean = float(np.mean(system.values(name)))
    label = name_of(system.short)
    line = {"color": style.color, "dash": "dash", "width": 1.5}
    ends = [(span[0], mean), (span[-1], mean)]
    return trace("lines", ends, f"{label}: %{{y:.4g}}<extra></extra>", name=label, line=line)


def _teachers(lines: Sequence[Sequence[tuple[float, System]]], name: str, span: Sequence[float]) -> list[dict[str, Any]]:
    """Return a line for each different teacher: its mean at each x, or one level over the whole axis if it is the same."""
    of_teacher = name.replace("/student/", "/teacher/")
    levels: dict[tuple[tuple[float, float], ...], None] = {}
    for members in lines:
        points = sorted((x, round(mean, 6)) for x, system in members if (mean := system.mean(of_teacher)) is not None)
        if len({mean for _, mean in points}) == 1:
            points = [(span[0], points[0][1]), (span[-1], points[0][1])]
        levels |= {tuple(points): None} if points else {}
    line = {"color": NEUTRAL, "dash": "dot", "width": 2}
    hover = "teacher: %{y:.4g}<extra></extra>"
    return [
        trace("lines", points, hover, name="teacher", legendgroup="teacher", line=line)
        for points in list(levels)[:MOST_TEACHERS]
    ]
