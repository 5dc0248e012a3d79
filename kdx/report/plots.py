"""Matplotlib figures of runs repeated over seeds: the mean in front, every seed behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]  # (epoch, value)
Groups = Mapping[Any, Sequence[float]]  # values per seed, by the setting in which the systems differ

# The color-blind safe palette of Okabe and Ito, without yellow, which is too light for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B5B5B", "#8C510A", "#332288")
INK, FAINT, SOFT = "#222222", "#D9D9D9", "#777777"
LEGEND = "dots: seeds · line: mean · band: ± one standard deviation"
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ECECEC",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "font.size": 9,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "kdx",
}


@dataclass(frozen=True)
class Panel:
    """One metric: values per seed at each x; `levels` are systems without x, drawn as horizontal lines."""

    label: str
    points: Groups
    levels: Groups = field(default_factory=dict)


def figure(panels: int, width: float, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """Return an empty figure in the common style and its axes, `panels` in a row; width and height in inches.

    It needs no display.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    with mpl.rc_context(STYLE):
        drawing = Drawing(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawing)
        axes = [drawing.add_subplot(1, panels, i + 1) for i in range(panels)]
        drawing.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=INK)
    return drawing, axes


def against(title: str, caption: str, panels: Sequence[Panel]) -> Figure:
    """Return a figure of metrics against x on a logarithmic axis. Dots: seeds; line: mean; band: ± one standard deviation."""
    drawing, axes = figure(len(panels), 1.0 + 3.3 * len(panels), 3.5, title)
    for axis, panel, color in zip(axes, panels, COLORS, strict=False):
        highest = max((_mean(values) for values in panel.levels.values()), default=0.0)
        for (name, values), style in zip(panel.levels.items(), ("--", ":", "-."), strict=False):
            mean, spread = _mean(values), _spread(values)
            above = mean == highest  # so that two names never overlap between their lines
            axis.axhspan(mean - spread, mean + spread, color=FAINT, alpha=0.45, lw=0)
            axis.axhline(mean, color="#5B5B5B", ls=style, lw=1.4)
            axis.annotate(
                name, (1, mean), xycoords=("axes fraction", "data"), xytext=(-3, 3 if above else -3),
                textcoords="offset points", ha="right", va="bottom" if above else "top", fontsize=8, color="#444444",
            )  # fmt: skip
        _line(axis, panel.points, color)
        _name(axis, panel.label)
        _numbers(axis, list(panel.points), caption)
    _explain(drawing, LEGEND)
    return drawing


def patience(title: str, label: str, policies: Mapping[str, Groups], curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """Return a figure of a metric after different numbers of epochs; thin lines: curves on val of the longest training."""
    drawing, (axis,) = figure(1, 7.2, 4.4, title)
    ends = []
    for (name, groups), color in zip(policies.items(), COLORS, strict=False):
        epochs, mean = _average(curves.get(name, ()))
        inside = epochs >= min(groups) / 2
        axis.plot(epochs[inside], mean[inside], color=color, lw=1.0, alpha=0.35)
        _line(axis, groups, color)
        ends.append((_mean(groups[max(groups)]), name, color))
    axis.set_yscale("log")
    _plain(axis.yaxis)
    _numbers(axis, sorted({x for groups in policies.values() for x in groups}), "epochs of training")
    _name(axis, label)
    _explain(drawing, LEGEND + (" · thin: on val, during the longest training" if curves else ""))
    _label_ends(axis, ends)
    return drawing


def trajectories(title: str, label: str, bundles: Mapping[str, Sequence[Curve]]) -> Figure:
    """Return a figure of a quantity over the epochs; thin lines: seeds; thick line: mean."""
    drawing, (axis,) = figure(1, 7.2, 4.0, title)
    ends = []
    for (name, curves), color in zip(bundles.items(), COLORS, strict=False):
        for curve in curves:
            axis.plot(*zip(*curve, strict=True), color=color, lw=0.8, alpha=0.35)
        epochs, mean = _average(curves)
        axis.plot(epochs, mean, color=color, lw=2.2)
        ends.append((float(mean[-1]), name, color))
    axis.set_xlabel("epoch")
    _name(axis, label)
    _explain(drawing, "thin: seeds · thick: mean")
    axis.margins(x=0.01)
    _label_ends(axis, ends)
    return drawing


def _name(axis: Axes, label: str) -> None:
    axis.set_title(label, loc="left", fontsize=10, color=INK)


def _explain(drawing: Figure, text: str) -> None:
    """Write a line of text below the panels."""
    drawing.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=SOFT)


def _line(axis: Axes, groups: Groups, color: str) -> None:
    xs = sorted(groups)
    means = np.array([_mean(groups[x]) for x in xs])
    spreads = np.array([_spread(groups[x]) for x in xs])
    axis.fill_between(xs, means - spreads, means + spreads, color=color, alpha=0.15, lw=0)
    axis.plot(xs, means, color=color, lw=2.0, marker="o", ms=5, mec="white", mew=0.8, zorder=3)
    for x in xs:
        axis.plot([x] * len(groups[x]), groups[x], ls="", marker="o", ms=2.6, color=color, alpha=0.55, mew=0)


def _numbers(axis: Axes, values: Sequence[float], caption: str) -> None:
    """Make the x axis logarithmic, with ticks at the given values."""
    axis.set_xscale("log")
    axis.set_xticks(list(values), [f"{value:g}" for value in values])
    axis.xaxis.set_minor_locator(_no_ticks())
    axis.set_xlabel(caption)


def _plain(axis: Any) -> None:
    """Write numbers like 0.05 on a logarithmic axis; matplotlib's default are powers of ten."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(_no_ticks())


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _label_ends(axis: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names at the right ends of lines, moved apart so that they do not overlap."""
    drawing = axis.get_figure(root=True)
    assert drawing is not None
    drawing.draw_without_rendering()
    to_points = axis.transData.transform
    height = 11.0 * drawing.dpi / 72
    taken = -np.inf
    for value, name, color in sorted(ends):
        y = max(float(to_points((1, value))[1]), taken + height)
        taken = y
        at = axis.transAxes.inverted().transform((0, y))[1]
        axis.text(1.015, at, name, transform=axis.transAxes, color=color, fontsize=9, va="center", fontweight="bold")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _average(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return (epochs, mean over the curves) at the epochs that all curves have."""
    if not curves:
        return np.empty(0), np.empty(0)
    common = sorted(set.intersection(*({epoch for epoch, _ in curve} for curve in curves)))
    by_epoch = [dict(curve) for curve in curves]
    return np.array(common), np.array([np.mean([values[epoch] for values in by_epoch]) for epoch in common])
