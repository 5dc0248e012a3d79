"""A chart of the page: Plotly figures, one for each choice of its selects, in colors that the page swaps by theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdx.report.plots import COLORS

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SHAPES = {  # Plotly's symbols as SVG paths, for tables and legends
    "circle": "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1-5 0Z",
    "square": "M-4.5-4.5H4.5V4.5H-4.5Z",
    "diamond": "M0-6L6 0L0 6L-6 0Z",
    "triangle-up": "M0-5.5L6 4.5H-6Z",
    "x": "M-5.5-3L-3-5.5L0-2.5L3-5.5L5.5-3L2.5 0L5.5 3L3 5.5L0 2.5L-3 5.5L-5.5 3L-2.5 0Z",
    "cross": "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "triangle-down": "M0 5.5L6-4.5H-6Z",
}
SYMBOLS = tuple(SHAPES)
# What the colors become on a dark page: the same hues, light enough to stand out from it.
DARK = {
    "#0072B2": "#56A8E0",
    "#D55E00": "#F08A45",
    "#009E73": "#35C49B",
    "#CC79A7": "#E29AC2",
    "#56B4E9": "#A3D8F7",
    "#E69F00": "#F2BE4A",
    "#5B5B5B": "#B4B4B4",
    "#8C510A": "#C99355",
    "#332288": "#9C8EF0",
}
FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
NEUTRAL = "#5B5B5B"
Figure = Mapping[str, Any]  # {"data": traces, "layout": layout}, as Plotly reads it; the tests let plotly.py check each


@dataclass(frozen=True)
class Look:
    """How a group is drawn, in every chart alike. Beyond nine groups colors come again, with another dash and symbol."""

    color: str
    dash: str
    symbol: str

    @property
    def soft(self) -> str:
        """The color for a band behind the line."""
        return self.color + "2E"


def look(index: int) -> Look:
    """The look of the group at a place in the order of groups."""
    turn = index // len(COLORS)
    return Look(COLORS[index % len(COLORS)], DASHES[turn % len(DASHES)], SYMBOLS[index % len(SYMBOLS)])


@dataclass(frozen=True)
class Chart:
    """One chart: `figures` has a figure per combination of the selects' options, as "0", "1" or "0,2" (the options' places)."""

    key: str
    title: str
    note: str
    figures: Mapping[str, Figure]
    selects: Sequence[tuple[str, Sequence[str]]] = ()  # (label, options)
    log: bool = False  # whether a logarithmic y axis may be asked for
    wide: bool = False
    first: str = field(default="")  # the combination shown at first; empty: the first one that there is

    def as_data(self) -> dict[str, Any]:
        """Plain data for the page's script: {"figures": {key: {"data", "layout"}}, "first": key}."""
        figures = {key: rounded(figure) for key, figure in self.figures.items()}
        return {"figures": figures, "first": self.first or next(iter(figures))}


def figure(traces: Iterable[Any], x: str = "", y: str = "", **layout: Any) -> Figure:
    """A figure with titled axes and no colors of its own for paper, grid and text: the page gives them."""
    base: dict[str, Any] = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    for axis in ("xaxis", "yaxis"):
        base[axis] |= layout.pop(axis, {})
    return {"data": list(traces), "layout": {**base, **layout}}


def trace(mode: str, points: Iterable[tuple[Any, Any]], hover: str = "", **more: Any) -> dict[str, Any]:
    """A trace of (x, y) points: `mode` is Plotly's ("lines", "markers", "lines+markers"); without `hover` none is shown."""
    x, y = zip(*pairs, strict=True) if (pairs := list(points)) else ((), ())
    told = {"hovertemplate": hover} if hover else {"hoverinfo": "skip"}
    return {"type": "scatter", "mode": mode, "x": list(x), "y": list(y), **told, **more}


def templates() -> dict[str, Any]:
    """Plotly's layout templates of the two themes, by name."""
    return {
        "light": _template("#1d1d1f", "#6b6b70", "#e9e9ec", "#c9c9ce", "#ffffff"),
        "dark": _template("#ececee", "#a0a0a8", "#2c2d33", "#4a4b53", "#1b1c21"),
    }


def _template(ink: str, soft: str, grid: str, line: str, paper: str) -> dict[str, Any]:
    axis = {
        "gridcolor": grid,
        "linecolor": line,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "tickcolor": line,
        "ticklen": 4,
        "tickfont": {"color": soft, "size": 12},
        "title": {"font": {"color": soft, "size": 13}, "standoff": 10},
        "automargin": True,
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
            "showlegend": False,  # the page has legends of its own, which keys can reach
            "hoverlabel": {"bgcolor": paper, "bordercolor": line, "font": {"color": ink, "family": FONT, "size": 12}},
            "hovermode": "closest",
        }
    }


def rounded(value: Any, digits: int = 5) -> Any:
    """The same plain data with numbers to so many significant digits and nothing that JSON lacks: no NaN, no infinity."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(item, digits) for key, item in value.items() if item is not None}
    return [rounded(item, digits) for item in value] if isinstance(value, list | tuple) else value


def name_of(label: str, most: int = 48) -> str:
    """A label for a legend or an axis: short, and with nothing in it that Plotly would read as markup."""
    short = label if len(label) <= most else label[: most - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
