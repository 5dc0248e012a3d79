"""Chart of student and teacher metrics against the severity of a corruption, as measured by `kdx-evaluate shift=...`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdx.compare.metric_names import unit, what
from kdx.compare.page.charts import Chart, figure, name_of, trace
from kdx.compare.page.material import Material
from kdx.compare.runs import RunRecord

METRICS = ("accuracy", "ece", "nll", "entropy")
Shifts = dict[str, dict[float, dict[str, float]]]  # corruption -> severity -> metrics


def shifts_of(run: RunRecord) -> Shifts:
    """Return the metrics under shifts in the evaluations of a run; damaged files and files without shifts are skipped."""
    shifts: Shifts = {}
    for file in sorted((run.path / "evaluations").glob("*.json")):
        try:
            evaluation = json.loads(file.read_text())
            entries = [(e["corruption"], float(e["severity"]), e["metrics"]) for e in evaluation.get("shift") or ()]
            where = _elsewhere(evaluation)
            clean = {str(name): float(value) for name, value in (evaluation.get("clean") or {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        for corruption, severity, metrics in entries:
            name = f"{corruption}{where}"
            at = shifts.setdefault(name, {0.0: clean} if clean and corruption != "resolution" else {})
            at[severity] = {str(name): float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return shifts


def _elsewhere(evaluation: Mapping[str, Any]) -> str:
    """Return what distinguishes an evaluation from one on the run's own test split: " on imagefolder photos, val"."""
    data, split = evaluation.get("data") or {}, evaluation.get("split") or "test"
    other = data.get("name", "own") != "own"
    root = f" {Path(data['root']).name}" if other and data.get("root") else ""
    return (f" on {data['name']}{root}" if other else "") + (f", {split}" if split != "test" else "")


def chart(material: Material) -> Chart | None:
    """Return a figure per corruption and metric: a line per group and network, the mean over the evaluated runs."""
    measured = [(system, [shifts for run in system.done if (shifts := shifts_of(run))]) for system in material.rows]
    available = {name for _, runs in measured for shifts in runs for at in shifts.values() for m in at.values() for name in m}
    metrics = [metric for metric in METRICS if any(name.endswith(f"/{metric}") for name in available)]
    corruptions = sorted({corruption for _, runs in measured for shifts in runs for corruption in shifts})
    figures = {}
    for i, corruption in enumerate(corruptions):
        for j, metric in enumerate(metrics):
            traces: list[Any] = []
            for system, runs in measured:
                for network, dash in (("student", "solid"), ("teacher", "dot")):
                    line = severities([shifts.get(corruption, {}) for shifts in runs], network, metric)
                    if line:
                        label = f"{name_of(system.short)}, {network}"
                        traces.append(
                            trace(
                                "lines+markers", line.items(), f"{label}: %{{y:.4g}}<extra></extra>", name=label,
                                line={"color": system.look.color, "dash": dash}, marker={"symbol": system.look.symbol},
                            )
                        )  # fmt: skip
            label = what(metric) + (f", {unit(metric)}" if unit(metric) else "")
            figures[f"{i},{j}"] = figure(traces, "resolution, px" if corruption.startswith("resolution") else "severity", label)
    if not figures:
        return None
    selects = [("Corruption", corruptions), ("Metric", [what(metric) for metric in metrics])]
    note = "Mean over the evaluated runs. Severity 0: images without corruption. Solid: student. Dotted: teacher."
    starts = [f"0,{j}" for j, metric in enumerate(metrics) if metric in METRICS[:2]]  # accuracy, and ECE beside it
    return Chart("corruptions", "Corruptions", note, figures, selects, starts=starts or ["0,0"])


def severities(runs: list[dict[float, dict[str, float]]], network: str, metric: str) -> dict[float, float]:
    """Return the mean over runs by severity of the metric `<network>/<metric>`, with any prefix."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for severity, metrics in run.items():
            named = [value for name, value in metrics.items() if f"/{name}".endswith(f"/{network}/{metric}")]
            finite = [value for value in named if np.isfinite(value)]
            if finite:
                values.setdefault(severity, []).append(finite[0])
    return {severity: float(np.mean(of_runs)) for severity, of_runs in sorted(values.items())}
