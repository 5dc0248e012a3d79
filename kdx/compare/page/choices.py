"""How to choose a temperature, and which resolution: a metric on val against the setting, and what val prefers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdx.compare.comparison import Cell, cells_of
from kdx.compare.metric_names import direction, titled, unit, what
from kdx.compare.page.charts import Chart, Figure, figure, first_shown, ticks, trace
from kdx.compare.page.influences import families, pixels, tau, without
from kdx.compare.page.material import Material, System
from kdx.compare.statistics import Interval, number, paired, student_interval
from kdx.report.plots import COLORS

METRICS = ("accuracy", "ece", "nll")
MOST_NAMED, MOST_DOTS = 6, 600
NOTE = (
    "Dots: seeds on val. Line: mean, with Student's 95 % interval over seeds, cut off where it is far wider than the seeds. "
    "Star: the best mean on val, which is chosen; only its value on test is stated. If the epoch is selected on val as well, "
    "values on val are slightly optimistic."
)


@dataclass(frozen=True)
class Choice:
    """One setting at several values, in groups that differ in nothing else, by a metric on val."""

    cells: Mapping[float, Cell]  # by value of the setting, in its order
    best: float  # the value with the best mean
    alike: Sequence[float]  # other values that are not clearly worse, paired by seed; all if there is no interval
    is_clear: bool  # whether each difference has an interval
    on_test: Cell | None  # of the best value


def temperature(material: Material) -> Chart | None:
    """Return metrics on val against the distillation temperature, if groups differ in it."""
    return _chart(material, "choose-temperature", "Temperature on val", ("temperature",), tau, "T", "")


def resolution(material: Material) -> Chart | None:
    """Return metrics on val against the student's resolution, if groups differ in it."""
    return _chart(
        material, "choose-resolution", "Resolution on val", ("resolution.student",), pixels, "student resolution", " px"
    )


def choose(systems: Mapping[float, System], metric: str, sign: int) -> Choice | None:
    """Return what a metric on val chooses among groups, by the value of their setting; None for fewer than two values.

    Args:
        systems: The groups.
        metric: The metric without split and network: "accuracy".
        sign: 1 if more is better, else -1.
    """
    cells = {x: cell for x, system in sorted(systems.items()) if (cell := _cell(system, f"val/student/{metric}"))}
    if len(cells) < 2:
        return None
    best = max(cells, key=lambda x: sign * cells[x].mean)
    gaps = {x: paired(cells[best].values, cell.values) for x, cell in cells.items() if x != best}
    alike = [x for x, gap in gaps.items() if not _clearly_better(list(gap.values()), sign)]
    return Choice(
        cells, best, alike, all(len(gap) > 1 for gap in gaps.values()), _cell(systems[best], f"test/student/{metric}")
    )


def sentence(choice: Choice, metric: str, name: str, unit_text: str) -> str:
    """Return what val prefers, how clearly, and what the chosen group has on test."""
    cell, quantity = choice.cells[choice.best], what(metric)
    if len({one.mean for one in choice.cells.values()}) == 1:
        values = f"{len(choice.cells)} values of {name} ({number(cell.mean)})"
        return f"{quantity[0].upper()}{quantity[1:]}: equal on val at all {values}."
    interval = _interval(cell)
    spread = f" [{number(interval.low)}, {number(interval.high)}]" if interval else ""
    text = f"{quantity[0].upper()}{quantity[1:]}: val prefers {name} = {choice.best:g}{unit_text} "
    text += f"({number(cell.mean)}{spread}, n = {cell.n})"
    if not choice.is_clear:
        text += "; whether it is clearly better needs at least two seeds of each value"
    elif choice.alike:
        more = f" and {len(choice.alike) - MOST_NAMED} more" if len(choice.alike) > MOST_NAMED else ""
        text += f", not clearly better than {', '.join(f'{x:g}{unit_text}' for x in choice.alike[:MOST_NAMED])}{more}"
        if unit_text and min(choice.alike) < choice.best:
            text += f"; the smallest that is not clearly worse is {min(choice.alike):g}{unit_text}"
    else:
        text += ", clearly better than every other value"
    if choice.on_test is not None:
        text += f". On test the chosen one has {number(choice.on_test.mean, choice.on_test.std or None)}"
    return f"{text}."


def _chart(
    material: Material,
    key: str,
    title: str,
    drop: Sequence[str],
    x_of: Callable[[System], float | None],
    name: str,
    unit_text: str,
) -> Chart | None:
    family = _family(material, drop, x_of)
    if family is None:
        return None
    choices: dict[str, Choice] = {}
    for metric in METRICS:
        sign = 1 if direction(metric, material.higher_is_better) == "more" else -1
        if choice := choose(family, metric, sign):
            choices[metric] = choice
    if not choices:
        return None
    names = [f"val/student/{metric}" for metric in choices]
    figures = {
        str(i): drawing(choice, metric, name + unit_text.replace(" ", ", "))
        for i, (metric, choice) in enumerate(choices.items())
    }
    lead = [sentence(choice, metric, name, unit_text) for metric, choice in choices.items()]
    rest = without(next(iter(family.values())), drop)
    note = NOTE + (f" Group: {rest}." if len(material.systems) > len(family) else "") + material.unlisted
    return Chart(key, title, note, figures, [("Metric", [titled(one) for one in names])], starts=first_shown(names), lead=lead)


def _family(material: Material, drop: Sequence[str], x_of: Callable[[System], float | None]) -> Mapping[float, System] | None:
    """Return the groups that differ only in the setting, by its value: of several such families, the one that val prefers."""
    some = [system for system in material.rows if system.group.baseline is None and system.done and x_of(system)]
    by_value = [{x_of(system) or 0.0: system for system in members} for members in families(some, drop)]
    found = [(means, family) for family in by_value if len(family) > 1 and (means := _means(family))]
    return max(found, key=lambda pair: max(pair[0]))[1] if found else None


def _means(family: Mapping[float, System]) -> list[float]:
    means = (system.mean("val/student/accuracy") for system in family.values())
    return [mean for mean in means if mean is not None]


def drawing(choice: Choice, metric: str, axis: str) -> Figure:
    """Return the metric on val against the setting; seeds are left out where there are very many."""
    cells, color = choice.cells, COLORS[0]
    halves = [(interval.high - interval.low) / 2 if (interval := _interval(cell)) else 0.0 for cell in cells.values()]
    dots = [(x, value) for x, cell in cells.items() for value in cell.values.values()]
    drawn = dots if len(dots) <= MOST_DOTS else []
    faint, bars = (
        {"color": color, "size": 6, "opacity": 0.4},
        {"type": "data", "array": halves, "color": color, "thickness": 1.2},
    )
    star = {"color": COLORS[1], "size": 16, "symbol": "star"}
    best = [(choice.best, cells[choice.best].mean)]
    traces: list[dict[str, Any]] = [
        trace("markers", drawn, "%{x}: %{y:.4g}<extra>one seed</extra>", marker=faint, name="one seed"),
        trace(
            "lines+markers", [(x, cell.mean) for x, cell in cells.items()], "%{x}: %{y:.4g}<extra>mean</extra>", name="mean",
            marker={"color": color, "size": 9}, line={"color": color, "width": 2}, error_y=bars,
        ),
        trace("markers", best, "%{x}: %{y:.4g}<extra>chosen on val</extra>", marker=star, name="chosen on val"),
    ]  # fmt: skip
    low, high = min(y for _, y in dots), max(y for _, y in dots)
    room = 0.4 * (high - low) or 0.01
    label = what(metric) + (f", {unit(metric)}" if unit(metric) else "")
    return figure(traces, axis, label, xaxis=ticks(cells), yaxis={"range": [low - room, high + room]})


def _cell(system: System, name: str) -> Cell | None:
    return cells_of(system.group, [name]).get(name)


def _interval(cell: Cell) -> Interval | None:
    return student_interval(list(cell.values.values())) if cell.n > 1 else None


def _clearly_better(gaps: Sequence[float], sign: int) -> bool:
    if len(gaps) < 2:
        return False
    interval = student_interval(gaps)
    return min(sign * interval.low, sign * interval.high) > 0
