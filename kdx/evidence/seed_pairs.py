"""Distilled students beside their baseline, seed by seed: every run as a dot, and the paired differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdx.compare.comparison import Comparison, PairedDifference, Row, compare
from kdx.compare.metric_names import direction, what
from kdx.compare.runs import find_runs
from kdx.report.plots import COLORS, INK, SOFT, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ("accuracy", "nll", "ece")
BLUE, ORANGE, GREEN = COLORS[:3]
NOTE = "dots: seeds · bars: means · gray lines join runs of one seed · below: paired difference, 95 % interval (Student's t)"


def sweep_figure(sweep: Path, title: str, baseline: str = "scratch") -> Figure:
    """Figure of a sweep that holds one distilled group and its baseline, both tested.

    Raises:
        ValueError: if the sweep holds several distilled groups, or if fewer than two seeds are paired.
    """
    names = [f"test/{network}/{metric}" for metric in METRICS for network in ("student", "teacher")]
    comparison = compare(find_runs([sweep]), names, baseline)
    distilled = [row for row in comparison.rows if row.against is not None]
    if len(distilled) != 1:
        raise ValueError(f"Expected 1 group with a baseline in {sweep}, found {len(distilled)}; pass a sweep of one setting")
    return seed_pairs(comparison, distilled[0], title)


def seed_pairs(comparison: Comparison, distilled: Row, title: str) -> Figure:
    """Figure with a column per metric: the values of both groups and of the teacher above, their paired difference below.

    Raises:
        ValueError: if fewer than two seeds are paired.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    labels = next(row for row in comparison.rows if row.label == distilled.against)
    with mpl.rc_context({**STYLE, "font.size": 10}):
        drawing = Drawing(figsize=(8.0, 4.2), layout="constrained")
        FigureCanvasAgg(drawing)
        upper, lower = drawing.subplots(2, len(METRICS), height_ratios=(3.2, 1))
        for metric, values, difference in zip(METRICS, upper, lower, strict=True):
            teacher = distilled.cells[f"test/teacher/{metric}"].mean
            student = f"test/student/{metric}"
            _values(values, labels.cells[student].values, distilled.cells[student].values, teacher)
            better = "higher" if direction(metric) == "more" else "lower"
            values.set_title(f"{what(metric)} ({better} is better)", loc="left", fontsize=11, color=INK)
            _difference(difference, distilled.differences[student])
        drawing.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        drawing.supxlabel(NOTE, x=0.01, ha="left", fontsize=8, color=SOFT)
    return drawing


def _values(axis: Axes, labels: Mapping[int, float], distilled: Mapping[int, float], teacher: float) -> None:
    for seed in labels.keys() & distilled.keys():
        axis.plot([0, 1], [labels[seed], distilled[seed]], color="#BBBBBB", lw=1.0, zorder=1)
    for x, by_seed, color in ((0, labels, ORANGE), (1, distilled, BLUE)):
        _dots(axis, x, list(by_seed.values()), color)
    axis.plot(2, teacher, ls="", marker="D", ms=6, color=GREEN)
    axis.set_xticks([0, 1, 2], ["labels\nonly", "distilled", "teacher"])
    axis.set_xlim(-0.5, 2.5)
    axis.grid(axis="x", visible=False)


def _dots(axis: Axes, x: int, values: Sequence[float], color: str) -> None:
    mean = sum(values) / len(values)
    axis.plot([x - 0.22, x + 0.22], [mean, mean], color=color, lw=2.4, zorder=2)
    axis.plot([x] * len(values), values, ls="", marker="o", ms=5, color=color, mec="white", mew=0.6, zorder=3)


def _difference(axis: Axes, difference: PairedDifference) -> None:
    if difference.estimate is None:
        raise ValueError(f"No interval without two paired seeds: {difference.why}")
    low, high = difference.estimate.interval.low, difference.estimate.interval.high
    axis.axvline(0, color="#888888", lw=1.2)
    axis.plot([low, high], [0, 0], color=BLUE, lw=2.4, solid_capstyle="butt")
    axis.plot(difference.mean, 0, marker="o", ms=6, color=BLUE, mec="white", mew=0.6)
    axis.set_title(f"{difference.mean:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "\N{MINUS SIGN}"), fontsize=10, color=INK)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("distilled \N{MINUS SIGN} labels only", fontsize=9)
    reach = 1.15 * max(abs(low), abs(high))
    axis.set_xlim(-reach, reach)
    axis.locator_params(axis="x", nbins=4)
