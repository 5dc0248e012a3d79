"""A forest plot of all claims: distances to the claimed region in standard deviations over seeds, and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdx.compare.statistics import Verdict, margin
from kdx.evidence.findings import ClaimComparison, Finding
from kdx.report.plots import INK, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICTS: dict[Verdict, tuple[str, str]] = {  # color and marker; markers make the figure readable without color
    "holds": ("#00805E", "o"),
    "undecided": ("#808080", "s"),
    "fails": ("#D55E00", "X"),
}
REACH = 6.0  # the axis covers ± REACH standard deviations; values beyond are drawn as arrows
ROW, GAP = 1.0, 1.55  # from row to row, and from the last row of a claim to the next claim's name


def forest(findings: Sequence[Finding], title: str) -> Figure:
    """Return a figure with a row per comparison, grouped by claim; positive distances are inside the claimed region."""
    run = [finding for finding in findings if not finding.missing]
    height = sum(GAP + ROW * len(finding.comparisons) for finding in run)
    drawing, (axis,) = figure(1, 9.2, 1.1 + 0.185 * height, title)
    axis.axvspan(0, REACH, color="#009E73", alpha=0.06, lw=0)
    axis.axvline(0, color="#888888", lw=1.2)
    y = 0.0
    names: list[tuple[float, str, str]] = []  # y, text and color of claims and comparisons
    for finding in run:
        color = VERDICTS[finding.verdict][0]
        names.append((y, f"{finding.family}: {finding.name.replace('_', ' ')}", color))
        axis.text(REACH * 1.04, y, finding.verdict, fontsize=9, fontweight="bold", color=color, va="center")
        for comparison in finding.comparisons:
            y += ROW
            names.append((y, f"{_short(comparison.metric)} of {comparison.what} {comparison.claim}", ""))
            _draw(axis, y, comparison)
        y += GAP
    axis.set_xlim(-REACH, REACH)
    axis.set_ylim(y - GAP + ROW, -ROW)
    axis.set_yticks([at for at, _, _ in names], [text for _, text, _ in names], fontsize=7.5)
    for label, (_, _, color) in zip(axis.get_yticklabels(), names, strict=True):
        if color:
            label.set(color=color, fontsize=9, fontweight="bold")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(
        "distance inside the claimed region, in standard deviations over seeds, with 95 % interval; left of 0: outside",
        color=INK,
    )
    return drawing


def _draw(axis: Axes, y: float, comparison: ClaimComparison) -> None:
    color, marker = VERDICTS[comparison.verdict]
    low, mean, high = margin(comparison.estimate, comparison.claimed)
    left, right = max(-REACH, min(REACH, low)), max(-REACH, min(REACH, high))
    axis.plot([left, right], [y, y], color=color, lw=2.0, alpha=0.75)
    if high > REACH:
        axis.plot(REACH, y, marker=">", color=color, ms=5, clip_on=False)
    if low < -REACH:
        axis.plot(-REACH, y, marker="<", color=color, ms=5, clip_on=False)
    if abs(mean) <= REACH:
        axis.plot(mean, y, marker=marker, color=color, ms=6, mec="white", mew=0.8, zorder=3)


def _short(metric: str) -> str:
    """Return a metric name without its prefix: "test/student/ece" -> "ece"."""
    name, at, when = metric.partition("@")
    return name.rpartition("/")[2] + (f" {at} {when}" if at else "")
