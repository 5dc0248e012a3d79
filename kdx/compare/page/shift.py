"""Metrics of student and teacher against the severity of a corruption, where `kdx-evaluate shift=...` measured them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from kdx.compare.metric_names import unit, what
from kdx.compare.page.charts import Chart, figure, name_of, trace
from kdx.compare.page.material import Material
from kdx.compare.runs import RunRecord

METRICS = ("accuracy", "ece", "nll", "entropy")
Shifts = dict[str, dict[float, dict[str, float]]]  # corruption -> severity -> metrics


def shifts_of(run: RunRecord) -> Shifts:
    """What a run's evaluations say of shifts; files that are damaged or say nothing of it are passed over."""
    found: Shifts = {}
    for file in sorted((run.path / "evaluations").glob("*.json")):
        try:
            written = json.loads(file.read_text())
            entries = [(e["corruption"], float(e["severity"]), e["metrics"]) for e in written.get("shift") or ()]
            clean = {str(name): float(value) for name, value in (written.get("clean") or {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        for corruption, severity, metrics in entries:
            at = found.setdefault(str(corruption), {0.0: clean} if clean and corruption != "resolution" else {})
            at[severity] = {str(name): float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return found


def chart(material: Material) -> Chart | None:
    """A figure per corruption and metric: a line per group and network, the mean over the runs that were evaluated."""
    measured = [(system, [shifts for run in system.done if (shifts := shifts_of(run))]) for system in material.systems]
    there = {name for _, runs in measured for shifts in runs for at in shifts.values() for m in at.values() for name in m}
    metrics = [metric for metric in METRICS if any(name.endswith(f"/{metric}") for name in there)]
    corruptions = sorted({corruption for _, runs in measured for shifts in runs for corruption in shifts})
    figures = {}
    for i, corruption in enumerate(corruptions):
        for j, metric in enumerate(metrics):
            traces: list[Any] = []
            for system, runs in measured:
                for who, dash in (("student", "solid"), ("teacher", "dot")):
                    line = severities([shifts.get(corruption, {}) for shifts in runs], who, metric)
                    if line:
                        label = f"{name_of(system.short)}, {who}"
                        traces.append(
                            trace(
                                "lines+markers", line.items(), f"{label}: %{{y:.4g}}<extra></extra>", name=label,
                                line={"color": system.look.color, "dash": dash}, marker={"symbol": system.look.symbol},
                            )
                        )  # fmt: skip
            label = what(metric) + (f", {unit(metric)}" if unit(metric) else "")
            figures[f"{i},{j}"] = figure(traces, "pixels" if corruption == "resolution" else "severity", label)
    if not figures:
        return None
    selects = [("Corruption", corruptions), ("Metric", [what(metric) for metric in metrics])]
    return Chart("corruptions", "Corruptions", "Mean over the runs that were evaluated; 0: as it is.", figures, selects)


def severities(runs: list[dict[float, dict[str, float]]], who: str, metric: str) -> dict[float, float]:
    """The mean over runs by severity, of the metric named `.../<who>/<metric>` or `<who>/<metric>`."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for severity, metrics in run.items():
            named = [value for name, value in metrics.items() if f"/{name}".endswith(f"/{who}/{metric}") and np.isfinite(value)]
            if named:
                values.setdefault(severity, []).append(named[0])
    return {severity: float(np.mean(found)) for severity, found in sorted(values.items())}
