"""Reliability diagrams of teacher and student side by side: accuracy against confidence in bins, pooled over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdx.compare.page.charts import Chart, Figure, name_of, trace
from kdx.compare.page.material import Material
from kdx.compare.runs import RunRecord
from kdx.report.plots import COLORS

ORDER = ("teacher_raw", "teacher", "teacher_scaled", "student", "student_scaled")
TEACHER, STUDENT, OTHER = COLORS[1], COLORS[0], COLORS[2]
MOST_SIDE_BY_SIDE = 5


@dataclass(frozen=True)
class Diagram:
    """Sums over the examples in each of several equal-width bins of confidence, for one network."""

    split: str
    network: str
    resolution: float | None  # px
    count: np.ndarray  # [bins], number of examples
    confidence: np.ndarray  # [bins], sum of confidences
    correct: np.ndarray  # [bins], number of correct predictions
    runs: int = 1  # number of pooled runs

    @property
    def ece(self) -> float:
        """The expected calibration error of the pooled examples; for several runs it is not the mean of their ECEs."""
        total = self.count.sum()
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else math.nan


def diagrams_of(run: RunRecord) -> list[Diagram]:
    """Return the diagrams in `reliability.json` of a run; empty if it is missing or damaged."""
    try:
        entries = json.loads((run.path / "reliability.json").read_text())["diagrams"]
        return [_diagram(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _diagram(entry: dict[str, Any]) -> Diagram:
    count, confidence, correct = (np.asarray(entry[name], np.float64) for name in ("count", "confidence", "correct"))
    sums = (count, confidence, correct)
    if not count.ndim == 1 or len({v.shape for v in sums}) != 1 or not np.isfinite(np.concatenate(sums)).all():
        raise ValueError("Invalid reliability diagram: expected the same number of finite bins everywhere")
    network = str(entry["network"] if "network" in entry else entry["who"])  # "who" in version 0.1
    return Diagram(str(entry["split"]), network, entry.get("resolution"), count, confidence, correct)


def pooled(diagrams: Sequence[Diagram], split: str) -> list[Diagram]:
    """Return one diagram per network and resolution on `split`, with the bins of all runs added up."""
    by_network: dict[tuple[str, float | None], list[Diagram]] = {}
    for diagram in diagrams:
        if diagram.split == split:
            by_network.setdefault((diagram.network, diagram.resolution), []).append(diagram)
    joined = []
    for (network, resolution), parts in by_network.items():
        parts = [part for part in parts if len(part.count) == len(parts[0].count)]
        count, confidence, correct = (
            np.sum([getattr(part, n) for part in parts], 0) for n in ("count", "confidence", "correct")
        )
        joined.append(Diagram(split, network, resolution, count, confidence, correct, len(parts)))

    def place(diagram: Diagram) -> tuple[int, str, float]:
        first = ORDER.index(diagram.network) if diagram.network in ORDER else len(ORDER)
        return first, diagram.network, diagram.resolution or 0

    return sorted(joined, key=place)


def chart(material: Material) -> Chart | None:
    """Return a figure per group that has reliability diagrams; None if there is none."""
    figures: dict[str, Figure] = {}
    labels: list[str] = []
    most = 0
    for system in material.drawn:
        stored = [diagram for run in system.done for diagram in diagrams_of(run)]
        diagrams = pooled(stored, material.split) or pooled(stored, "val")
        if diagrams:
            figures[str(len(labels))] = side_by_side(diagrams[:MOST_SIDE_BY_SIDE])
            labels.append(system.short)
            most = max(most, len(diagrams))
    if not figures:
        return None
    note = (
        "Dashed diagonal: perfect calibration (accuracy equals confidence). Size of a point: number of examples in the bin. "
        "Below: fraction of examples in each bin of confidence. The examples of all seeds of a group are pooled, and the ECE "
        "is computed on the pooled examples."
    )
    return Chart("reliability", "Reliability", note + material.left_out, figures, [("Group", labels)], wide=most > 3)


def side_by_side(diagrams: Sequence[Diagram]) -> Figure:
    """Return a figure with a column per network: the reliability diagram and, below it, the histogram of confidence."""
    width, gap = 1 / len(diagrams), 0.045
    layout: dict[str, Any] = {"annotations": [], "shapes": [], "barmode": "overlay"}
    layout["meta"] = {"minWidth": 60 + 150 * len(diagrams)}  # px; on a narrow screen the figure scrolls
    traces: list[Any] = []
    for i, diagram in enumerate(diagrams):
        n = "" if i == 0 else str(i + 1)
        low = f"{len(diagrams) + i + 1}"
        domain = [i * width + (gap / 2 if i else 0), (i + 1) * width - (gap / 2 if i < len(diagrams) - 1 else 0)]
        layout[f"xaxis{n}"] = {"domain": domain, "range": [0, 1], "anchor": f"y{n}", "showticklabels": False, "dtick": 0.25}
        layout[f"yaxis{n}"] = {"domain": [0.33, 0.84], "range": [0, 1.02], "anchor": f"x{n}", "dtick": 0.25}
        layout[f"xaxis{low}"] = {"domain": domain, "range": [0, 1], "anchor": f"y{low}", "dtick": 0.5}
        layout[f"xaxis{low}"] |= {"title": {"text": "confidence"}}
        layout[f"yaxis{low}"] = {"domain": [0, 0.24], "range": [0, 1.02], "anchor": f"x{low}", "dtick": 0.5}
        layout[f"yaxis{n}"]["showticklabels"] = layout[f"yaxis{low}"]["showticklabels"] = i == 0
        if i == 0:
            layout["yaxis"]["title"] = {"text": "accuracy"}
            layout[f"yaxis{low}"]["title"] = {"text": "fraction"}
        pixels = f"{diagram.resolution:g} px · " if isinstance(diagram.resolution, int | float) else ""
        name = name_of(diagram.network.partition("_at_")[0].replace("_", " "), 17)
        title = f"<b>{name}</b><br>{pixels}ECE {diagram.ece:.3f}"
        layout["annotations"].append(
            {"text": title, "x": domain[0], "y": 1.0, "xref": "paper", "yref": "paper", "showarrow": False}
            | {"xanchor": "left", "yanchor": "top", "align": "left", "font": {"size": 12}}
        )
        traces += _traces(diagram, f"x{n}", f"y{n}", f"x{low}", f"y{low}")
    return {"data": traces, "layout": layout}


def _traces(diagram: Diagram, x: str, y: str, x_low: str, y_low: str) -> list[dict[str, Any]]:
    color = TEACHER if "teacher" in diagram.network else STUDENT if "student" in diagram.network else OTHER
    bins, filled = len(diagram.count), diagram.count > 0
    count = diagram.count[filled]
    share = diagram.count / max(1.0, diagram.count.sum())
    places = ((np.arange(bins) + 0.5) / bins).tolist()
    size = (5 + 13 * np.sqrt(count / count.max())).tolist() if len(count) else []
    dots = {"color": color, "size": size, "opacity": 0.8, "line": {"width": 0}}
    points = zip((diagram.confidence[filled] / count).tolist(), (diagram.correct[filled] / count).tolist(), strict=True)
    hover = "confidence %{x:.3f}<br>accuracy %{y:.3f}<br>%{customdata} examples<extra></extra>"
    upper = {"xaxis": x, "yaxis": y}
    return [
        trace("lines", [(0, 0), (1, 1)], line={"color": "#999999", "dash": "dash", "width": 1}, **upper),
        trace(
            "lines+markers", points, hover, customdata=count.astype(int).tolist(), line={"color": color, "width": 1.5},
            marker=dots, cliponaxis=False, **upper,
        ),
        {
            "type": "bar", "xaxis": x_low, "yaxis": y_low, "x": places, "y": share.tolist(), "width": 0.9 / bins,
            "marker": {"color": color, "opacity": 0.7}, "hovertemplate": "%{y:.3f} of the examples<extra></extra>",
        },
    ]  # fmt: skip
