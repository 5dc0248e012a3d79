"""Charts of the page: Plotly figures, one per combination of select options; the page replaces the colors by theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdx.report.plots import COLORS

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SHAPES = {  # Plotly's symbols as SVG paths, for the tables and legends
    "circle": "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1-5 0Z",
    "square": "M-4.5-4.5H4.5V4.5H-4.5Z",
    "diamond": "M0-6L6 0L0 6L-6 0Z",
    "triangle-up": "M0-5.5L6 4.5H-6Z",
    "x": "M-5.5-3L-3-5.5L0-2.5L3-5.5L5.5-3L2.5 0L5.5 3L3 5.5L0 2.5L-3 5.5L-5.5 3L-2.5 0Z",
    "cross": "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "triangle-down": "M0 5.5L6-4.5H-6Z",
    "star": "M0-6.5L1.5-2L6.2-2L2.4.8L3.8 5.3L0 2.5L-3.8 5.3L-2.4.8L-6.2-2L-1.5-2Z",
}
SYMBOLS = tuple(SHAPES)[:-1]  # of groups; the star marks a choice
# Colors of the dark theme: the same hues, lighter for contrast.
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
TICK_GAP = 0.09  # least distance of two ticks, as a part of the axis
LOG_FROM = 10.0  # ratio of the largest to the smallest value
Figure = Mapping[str, Any]  # {"data": traces, "layout": layout} in Plotly's format; tests validate it with plotly.py


@dataclass(frozen=True)
class Look:
    """The style of a group in all charts. From the tenth group on, colors repeat with another dash and symbol."""

    color: str
    dash: str
    symbol: str

    @property
    def soft(self) -> str:
        """The translucent color of a band."""
        return self.color + "2E"


def look(index: int) -> Look:
    """Return the style of the group at position `index`."""
    turn = index // len(COLORS)
    return Look(COLORS[index % len(COLORS)], DASHES[turn % len(DASHES)], SYMBOLS[index % len(SYMBOLS)])


@dataclass(frozen=True)
class Chart:
    """One chart: `figures` has a figure per combination of options, keyed by their indices: "0", "1" or "0,2"."""

    key: str
    title: str
    note: str
    figures: Mapping[str, Figure]
    selects: Sequence[tuple[str, Sequence[str]]] = ()  # (label, options)
    log: bool = False  # whether to offer a logarithmic y axis
    wide: bool = False
    starts: Sequence[str] = ("0",)  # keys of the figures that are shown side by side at first
    lead: Sequence[str] = ()  # sentences above the chart

    def as_data(self) -> dict[str, Any]:
        """Return plain data for the page's script: {key: {"data", "layout"}}."""
        return {key: rounded(figure) for key, figure in self.figures.items()}


def figure(traces: Iterable[Any], x: str = "", y: str = "", **layout: Any) -> Figure:
    """Return a figure with axis titles; the colors of background, grid and text come from the theme of the page."""
    drawn = list(traces)
    base: dict[str, Any] = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    for axis in ("xaxis", "yaxis"):
        base[axis] |= layout.pop(axis, {})
        if not {"range", "type"} & base[axis].keys():
            base[axis] |= _around(drawn, axis[0])
    return {"data": drawn, "layout": {**base, **layout}}


def _around(traces: Sequence[Mapping[str, Any]], coordinate: str) -> dict[str, Any]:
    """Return the range of an axis if all its points have one value, around which Plotly shows ±1, such as an ECE of -1."""
    if any(one["type"] != "scatter" or any(one.get(f"error_{coordinate}", {}).get("array") or ()) for one in traces):
        return {}
    values = {value for one in traces for value in one[coordinate] if value is not None}
    if len(values) != 1 or not isinstance(value := values.pop(), int | float):
        return {}
    room = 0.1 * abs(value) or 0.1
    return {"range": [value - room, value + room]}


def log_axis(values: Iterable[float], **axis: Any) -> dict[str, Any]:
    """Return an x axis for positive values: logarithmic over a decade or more, else linear, so that tick labels never touch."""
    low, high = min(values := list(values), default=1.0), max(values, default=1.0)
    if high / low >= LOG_FROM:
        return {"type": "log", "dtick": "D2" if high / low < LOG_FROM**2 else 1, **axis}
    return {"nticks": 5, **({} if high > low else {"range": [0.5 * low, 1.5 * low]}), **axis}


def ticks(values: Iterable[float], **axis: Any) -> dict[str, Any]:
    """Return a logarithmic x axis with ticks at the positive values, without those whose labels would touch others."""
    kept: list[float] = []
    ordered = sorted(set(values))
    for value in ordered:
        if not kept or math.log(value / kept[-1]) >= TICK_GAP * math.log(ordered[-1] / ordered[0]):
            kept.append(value)
    return {"type": "log", "tickmode": "array", "tickvals": kept, "ticktext": [f"{value:g}" for value in kept], **axis}


def first_shown(names: Sequence[str]) -> list[str]:
    """Return the places of accuracy and ECE among the metrics, which are shown first; the first place if one is missing."""
    places = [str(i) for what in ("accuracy", "ece") for i, name in enumerate(names) if name.endswith(f"/student/{what}")]
    return places[:2] if len(places) > 1 else ["0"]


def trace(mode: str, points: Iterable[tuple[Any, Any]], hover: str = "", **more: Any) -> dict[str, Any]:
    """Return a scatter trace.

    Args:
        mode: "lines", "markers" or "lines+markers".
        points: (x, y) pairs.
        hover: Plotly's hover template; "" disables the hover label.
        more: Further properties of the trace.
    """
    x, y = zip(*pairs, strict=True) if (pairs := list(points)) else ((), ())
    label = {"hovertemplate": hover} if hover else {"hoverinfo": "skip"}
    return {"type": "scatter", "mode": mode, "x": list(x), "y": list(y), **label, **more}


def templates() -> dict[str, Any]:
    """Return Plotly's layout templates for the themes "light" and "dark"."""
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
            "margin": {"l": 56, "r": 16, "t": 38, "b": 48},  # above: room for the toolbar
            "showlegend": False,  # the page has its own legends, which are accessible by keyboard
            "hoverlabel": {"bgcolor": paper, "bordercolor": line, "font": {"color": ink, "family": FONT, "size": 12}},
            "hovermode": "closest",
        }
    }


def rounded(value: Any, digits: int = 5) -> Any:
    """Return the plain data with floats rounded to `digits` significant digits; NaN and infinity become None."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(item, digits) for key, item in value.items() if item is not None}
    return [rounded(item, digits) for item in value] if isinstance(value, list | tuple) else value


def name_of(label: str, most: int = 48) -> str:
    """Return a label of at most `most` characters for a legend or an axis, with Plotly's markup escaped."""
    short = label if len(label) <= most else label[: most - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
