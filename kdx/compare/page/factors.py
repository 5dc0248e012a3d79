"""Charts of a sweep over several settings: how much each explains, and all of them together as parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdx.compare.groups import settings
from kdx.compare.metric_names import short, titled, what
from kdx.compare.page.charts import NEUTRAL, Chart, Figure, figure, first_shown, name_of, trace
from kdx.compare.page.material import Material, System
from kdx.compare.statistics import number
from kdx.report.plots import COLORS

METRICS = ("val/student/accuracy", "val/student/ece", "val/student/nll")
MOST_FACTORS = 10
LEAST_FACTORS = 3  # for parallel coordinates; two settings are seen better against each other
MOST_TICKS = 12  # of an axis
Factors = Mapping[str, Sequence[str]]  # setting -> its value in each group, as in an override


@dataclass(frozen=True)
class Axis:
    """One of the parallel coordinates: the place of each group, 0 to 1, and (place, text) of the ticks."""

    label: str
    places: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def importance(material: Material) -> Chart | None:
    """Return the share of the variance of metrics on val that each setting explains; None for fewer than two settings."""
    systems, factors = of_sweep(material)
    figures: dict[str, Figure] = {}
    names: list[str] = []
    count = 0
    for metric in METRICS:
        values = [system.values(metric) for system in systems]
        targets = [value for of_group in values for value in of_group]
        levels = {
            name: [level for level, of_group in zip(chosen, values, strict=True) for _ in of_group]
            for name, chosen in factors.items()
        }
        levels = {name: of_runs for name, of_runs in levels.items() if 1 < len(set(of_runs)) <= len(targets) / 2}
        if len(levels) > 1 and len(set(targets)) > 1:
            figures[str(len(names))] = _bars(
                {
                    name: (share(of_runs, targets), (len(set(of_runs)) - 1) / (len(of_runs) - 1))
                    for name, of_runs in levels.items()
                }
            )
            names.append(metric)
            count = max(count, len(targets))
    if not figures:
        return None
    note = (
        f"Share of the variance over n = {count} runs on val that a setting explains alone (one-way analysis of variance, eta "
    )
    note += (
        "squared). Line in a bar: what a setting without any effect explains on average. In a full grid the shares add up to "
    )
    note += "at most 1; the rest are joint effects and seeds. Baselines are left out."
    select = ("Metric", [titled(name) for name in names])
    return Chart("importance", "Importance of settings", note, figures, [select], starts=first_shown(names))


def parallel(material: Material) -> Chart | None:
    """Return the groups as lines across settings and metrics on val; None for fewer than three settings."""
    systems, factors = of_sweep(material)
    metrics = {name: [system.mean(name) for system in systems] for name in METRICS}
    whole = {name: means for name, means in metrics.items() if systems and None not in means}
    if len(factors) < LEAST_FACTORS or not whole:
        return None
    axes = [_choices(name, chosen) for name, chosen in list(factors.items())[:MOST_FACTORS]]
    axes += [_measured(f"{what(name)}, val", [mean for mean in means if mean is not None]) for name, means in whole.items()]
    ranked = sorted(range(len(systems)), key=axes[len(axes) - len(whole)].places.__getitem__, reverse=True)
    best = set(ranked[: max(1, len(ranked) // 10)])
    labels = [name_of(system.short) for system in systems]
    share_of_best = f"{len(best)} of {len(systems)}"
    note = f"Lines: groups, the mean over seeds on val. Orange: the best by {what(next(iter(whole)))} on val, {share_of_best}. "
    note += "Baselines are left out."
    return Chart(
        "parallel", "Settings and metrics together", note + material.unlisted, {"0": _lines(axes, labels, best)}, wide=True
    )


def _lines(axes: Sequence[Axis], labels: Sequence[str], best: set[int]) -> Figure:
    """Return parallel coordinates as plain lines: Plotly's own need `eval`, which the policy of the page forbids."""
    traces = []
    kinds = (("other groups", COLORS[0], 1.2, 0.45, set(range(len(labels))) - best), ("best on val", COLORS[1], 2.5, 1.0, best))
    for name, color, width, opacity, members in kinds:
        points: list[tuple[int | None, float | None]] = []
        texts: list[str] = []
        for i in sorted(members):
            points += [*((k, axis.places[i]) for k, axis in enumerate(axes)), (None, None)]  # None ends a line
            texts += [labels[i]] * (len(axes) + 1)
        line = {"color": color, "width": width}
        traces.append(trace("lines", points, "%{text}<extra></extra>", text=texts, name=name, line=line, opacity=opacity))
    notes = [
        {"x": k, "y": y, "text": text, "showarrow": False, "xanchor": "right", "xshift": -5, "font": {"size": 11}}
        for k, axis in enumerate(axes)
        for y, text in axis.ticks
    ]
    heads = {"tickmode": "array", "tickvals": list(range(len(axes))), "ticktext": [axis.label for axis in axes], "side": "top"}
    across = {**heads, "range": [-0.6, len(axes) - 0.8], "showline": False, "ticks": "", "gridcolor": "#999999"}
    up = {"range": [-0.06, 1.06], "visible": False}
    layout = {"annotations": notes, "height": 380, "margin": {"l": 16, "t": 60, "b": 16}, "meta": {"minWidth": 110 * len(axes)}}
    return figure([one for one in traces if one["x"]], "", "", xaxis=across, yaxis=up, **layout)


def of_sweep(material: Material) -> tuple[list[System], Factors]:
    """Return the groups with finished runs that are no baselines, and the settings in which they differ."""
    systems = [system for system in material.rows if system.done and system.group.baseline is None]
    parts = settings([system.group for system in systems])
    paths = dict.fromkeys(path for part in parts for path in part)
    return systems, {path: [part.get(path, "none") for part in parts] for path in paths}


def share(levels: Sequence[str], values: Sequence[float]) -> float:
    """Return the part of the variance of the values that the levels of a setting explain, 0 to 1."""
    import numpy as np
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import OneHotEncoder

    columns = OneHotEncoder(sparse_output=False).fit_transform(np.array(levels, object)[:, None])
    return float(np.clip(LinearRegression().fit(columns, values).score(columns, values), 0, 1))


def _bars(shares: Mapping[str, tuple[float, float]]) -> Figure:
    ordered = sorted(shares.items(), key=lambda pair: pair[1][0])
    labels = [name_of(_spoken(name), 34) for name, _ in ordered]
    bars = {
        "type": "bar", "orientation": "h", "x": [own for _, (own, _) in ordered], "y": list(range(len(ordered))),
        "text": labels, "textposition": "none", "marker": {"color": COLORS[0]},
        "hovertemplate": "%{text}: %{x:.2f}<extra></extra>",
    }  # fmt: skip
    lines = [
        trace(
            "lines", [(chance, i - 0.4), (chance, i + 0.4)], "without effect: %{x:.2f}<extra></extra>", line={"color": NEUTRAL}
        )
        for i, (_, (_, chance)) in enumerate(ordered)
    ]
    axis: dict[str, Any] = {"tickmode": "array", "tickvals": list(range(len(ordered))), "ticktext": labels}
    return figure([bars, *lines], "share of the variance", xaxis={"range": [0, 1]}, yaxis=axis)


def _choices(name: str, chosen: Sequence[str]) -> Axis:
    """Return an axis with the values of a setting at equal distances, numbers in their order."""

    def key(value: str) -> tuple[float, str]:
        try:
            return float(value), ""
        except ValueError:
            return float("inf"), value

    order = sorted(set(chosen), key=key)
    top = max(1, len(order) - 1)
    step = -(-len(order) // MOST_TICKS)
    ticks = [(i / top, name_of(value, 14)) for i, value in enumerate(order)][::step]
    return Axis(name_of(_spoken(name), 20), [order.index(value) / top for value in chosen], ticks)


def _measured(label: str, values: Sequence[float]) -> Axis:
    low, width = min(values), (max(values) - min(values)) or 1.0
    ticks = [(i / 4, number(low + width * i / 4)) for i in range(5)]
    return Axis(label, [(value - low) / width for value in values], ticks)


def _spoken(path: str) -> str:
    return short(f"{path}=").rstrip("=")
