"""Reliability diagrams of a run: accuracy against confidence for each network, and the histogram of confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdx.report.plots import COLORS, INK, SOFT, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

ACROSS = 5
LONGEST = 28  # characters of a title that fit above a diagram
BLUE, ORANGE, GREEN = COLORS[:3]
LEGEND = (
    "bars: accuracy per bin of confidence; below: fraction of examples per bin\n"
    "orange: overconfident (confidence above accuracy) · green: underconfident"
)
ORDER = ("teacher", "teacher_raw", "teacher_scaled", "teacher_at_student_resolution", "student", "student_scaled")
TITLES = {
    "teacher": "teacher, as used in training",
    "teacher_raw": "teacher, uncalibrated",
    "teacher_scaled": "teacher, temperature-scaled",
    "teacher_at_student_resolution": "teacher",
    "student_scaled": "student, temperature-scaled",
}


def figure(content: Mapping[str, Any], split: str | None = None) -> Figure:
    """Return a figure of the reliability diagrams of one split.

    There is a diagram per network, teacher first: accuracy in bins of confidence with the gap to the mean confidence shaded,
    and below it the fraction of examples in each bin. It needs no display.

    Args:
        content: The content of reliability.json.
        split: The split; by default test if it is available, else val.

    Raises:
        ValueError: If there is no diagram of this split.
    """
    available = {diagram["split"] for diagram in content["diagrams"]}
    chosen = split or ("test" if "test" in available else "val")
    diagrams = [diagram for diagram in content["diagrams"] if diagram["split"] == chosen]
    if not diagrams:
        raise ValueError(f"No reliability diagram for split {chosen}; available: {', '.join(sorted(available)) or 'none'}")
    diagrams.sort(key=lambda diagram: ORDER.index(diagram["network"]) if diagram["network"] in ORDER else len(ORDER))
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    down = -(-len(diagrams) // ACROSS)
    across = -(-len(diagrams) // down)
    with mpl.rc_context(STYLE):
        drawing = Drawing(figsize=(0.7 + 2.5 * across, 0.85 + 3.7 * down))
        FigureCanvasAgg(drawing)
        width, height = drawing.get_size_inches()
        grid = drawing.add_gridspec(
            down, across, hspace=0.32, wspace=0.1,
            left=0.6 / width, right=1 - 0.15 / width, top=1 - 0.95 / height, bottom=0.84 / height,
        )  # fmt: skip
        for i, diagram in enumerate(diagrams):
            row, column = divmod(i, across)
            cell = grid[row, column].subgridspec(2, 1, height_ratios=[3.4, 1], hspace=0.08)
            upper, lower = (drawing.add_subplot(cell[part, 0]) for part in (0, 1))
            _draw(upper, lower, diagram, first=column == 0, last=i + across >= len(diagrams))
        total = int(sum(diagrams[0]["count"]))
        title = f"Confidence and accuracy on {chosen}, {total:,} examples"
        drawing.suptitle(title, x=0.01, y=1 - 0.06 / height, va="top", ha="left", fontsize=11.5, fontweight="bold", color=INK)
        drawing.supxlabel(LEGEND, x=0.01, y=0.08 / height, ha="left", va="bottom", fontsize=7.5, color=SOFT)
    return drawing


def _draw(upper: Axes, lower: Axes, diagram: Mapping[str, Any], *, first: bool, last: bool) -> None:
    count, confidence, correct = (np.array(diagram[name], dtype=np.float64) for name in ("count", "confidence", "correct"))
    edges = np.linspace(0, 1, len(count) + 1)
    some, total = count > 0, count.sum()
    accuracy, mean = (np.divide(part, count, out=np.zeros_like(part), where=some) for part in (correct, confidence))
    low, high = np.minimum(accuracy, mean), np.maximum(accuracy, mean)
    _bars(upper, edges, low, np.zeros_like(low), color=BLUE)
    for gap, color in ((mean > accuracy, ORANGE), (mean < accuracy, GREEN)):
        _bars(upper, edges, np.where(gap, high, low), low, color=color, alpha=0.55)
    upper.plot([0, 1], [0, 1], color=SOFT, lw=1.0, ls="--")
    upper.plot(mean[some], accuracy[some], ls="", marker="o", ms=3.5, color=INK, mec="white", mew=0.6, clip_on=False)
    network = diagram["network"]
    name = "student" if network.startswith("student_at_") else TITLES.get(network, network)
    short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    upper.set_title(f"{short}\n", loc="left", fontsize=9.5, color=INK)
    ece = np.abs(confidence - correct).sum() / total
    facts = f"{diagram['resolution']} px · accuracy {correct.sum() / total:.3f} · ECE {ece:.3f}"
    upper.text(0, 1.03, facts, transform=upper.transAxes, fontsize=8, color=SOFT)
    _bars(lower, edges, count / total, np.zeros_like(count), color="#777777")
    for axis in (upper, lower):
        axis.set_xlim(0, 1)
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.set_ylim(0, 1)
    upper.tick_params(labelbottom=False, labelleft=first)
    lower.tick_params(labelbottom=last, labelleft=first)
    if last:
        lower.set_xlabel("confidence")
    if first:
        upper.set_ylabel("accuracy")
        lower.set_ylabel("fraction")


def _bars(axis: Axes, edges: Floats, top: Floats, bottom: Floats, **style: Any) -> None:
    """Draw all bars as one polygon, which is many times faster than one polygon per bar."""
    axis.stairs(top, edges, baseline=bottom, fill=True, lw=0, **style)
