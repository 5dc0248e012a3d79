"""Charts of the searches of kdx-tune: history, importance of the settings, Pareto front; from `study.json` beside the runs."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdx.compare.metric_names import titled, unit, what
from kdx.compare.page.charts import NEUTRAL, Chart, Figure, figure, name_of, trace
from kdx.compare.page.curves import MOST_TICKS
from kdx.compare.page.material import Material
from kdx.report.plots import COLORS

FILE = "study.json"
FINISHED, PRUNED, BEST = COLORS[0], COLORS[5], COLORS[1]


@dataclass(frozen=True)
class Trial:
    """A trial: its values by objective if it is finished, else the last one that it reported."""

    number: int
    state: str
    values: Mapping[str, float]
    text: str  # its settings
    is_best: bool


@dataclass(frozen=True)
class Study:
    """The content of a `study.json`."""

    name: str
    objectives: Mapping[str, str]  # name -> "min" or "max"
    trials: Sequence[Trial]
    importances: Mapping[str, Mapping[str, float]]


def history(material: Material) -> Chart | None:
    """Return the value of each trial in the order of the trials, with the best value so far."""
    note = "Dots: finished trials. Crosses: pruned trials, at their last epoch. Line: best value so far."
    return _chart(material, "search-history", "History of the search", note, _history)


def importance(material: Material) -> Chart | None:
    """Return the importance of each setting for each objective."""
    note = "Share of the variance of the objective that a setting explains (fANOVA), over finished trials. With few trials, "
    return _chart(material, "search-importance", "Importance in the search", note + "it is a rough estimate.", _importance)


def front(material: Material) -> Chart | None:
    """Return the trials of a search with several objectives, a figure per pair of them; the Pareto front is marked."""
    figures: dict[str, Figure] = {}
    names: list[str] = []
    several = studies(material)
    for study in several:
        for x, y in itertools.combinations(study.objectives, 2):
            figures[str(len(figures))] = _front(study, x, y)
            names.append(_named(study, f"{titled(x)}, {titled(y)}", several))
    note = "Points: finished trials. Orange: the Pareto front, of all objectives: no other trial is better in all of them."
    return Chart("search-front", "Pareto front", note, figures, [("Objectives", names)]) if figures else None


def studies(material: Material) -> list[Study]:
    """Return the studies beside the runs, in the order of their folders. Files that are none are left out."""
    folders = dict.fromkeys(Path(run.path).parent for run in material.runs)
    return [study for folder in folders if (study := _read(folder)) is not None]


def _read(folder: Path) -> Study | None:
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        objectives = {str(name): str(mode) for name, mode in content["objectives"].items()}
        best = set(content["best"])
        trials = [_trial(entry, objectives, best) for entry in content["trials"]]
        shares = {
            str(name): {str(key): float(share) for key, share in values.items()}
            for name, values in content["importances"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Study(folder.name, objectives, trials, shares)


def _trial(entry: Mapping[str, Any], objectives: Mapping[str, str], best: set[Any]) -> Trial:
    values = entry["values"] or ([entry["last"][1]] if entry["state"] == "pruned" and entry["last"] else [])
    text = ", ".join(f"{key}={_short(value)}" for key, value in entry["params"].items())
    by_name = {name: float(value) for name, value in zip(objectives, values, strict=False)}
    finite = {name: value for name, value in by_name.items() if math.isfinite(value)}
    number = int(entry["number"])
    return Trial(number, str(entry["state"]), finite, name_of(f"trial {number}: {text}", 120), number in best)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _chart(material: Material, key: str, title: str, note: str, draw: Callable[[Study, str], Figure | None]) -> Chart | None:
    """Return a chart with a figure per study and objective for which there is one."""
    figures: dict[str, Figure] = {}
    names: list[str] = []
    several = studies(material)
    for study in several:
        for objective in study.objectives:
            drawn = draw(study, objective)
            if drawn is not None:
                figures[str(len(figures))] = drawn
                names.append(_named(study, titled(objective), several))
    return Chart(key, title, note, figures, [("Objective", names)]) if figures else None


def _named(study: Study, name: str, several: Sequence[Study]) -> str:
    return f"{study.name}: {name}" if len(several) > 1 else name


def _history(study: Study, objective: str) -> Figure | None:
    better = max if study.objectives[objective] == "max" else min
    kinds = (("finished", FINISHED, "circle"), ("pruned", PRUNED, "x"))
    traces: list[Any] = []
    for state, color, symbol in kinds:
        some = [trial for trial in study.trials if trial.state == state and objective in trial.values]
        if some:
            points = [(trial.number, trial.values[objective]) for trial in some]
            marker = {"color": color, "symbol": symbol, "size": 9}
            texts = [trial.text for trial in some]
            hover = "%{text}<br>%{y:.4g}<extra>" + state + "</extra>"
            traces.append(trace("markers", points, hover, text=texts, marker=marker, name=state, cliponaxis=False))
    done = [(trial.number, trial.values[objective]) for trial in study.trials if trial.state == "finished" and trial.values]
    if not done:
        return None
    so_far = list(itertools.accumulate((value for _, value in done), better))
    line = [(number, value) for (number, _), value in zip(done, so_far, strict=True)]
    traces.insert(0, trace("lines", line, line={"color": BEST, "width": 2, "shape": "hv"}, name="best so far"))
    whole = {"dtick": 1} if len(study.trials) <= MOST_TICKS else {}  # no half trials
    return figure(traces, "trial", _axis(objective), xaxis={"rangemode": "tozero", **whole})


def _importance(study: Study, objective: str) -> Figure | None:
    shares = sorted(study.importances.get(objective, {}).items(), key=lambda pair: pair[1])
    if not shares:
        return None
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [share for _, share in shares],
        "y": [name_of(key, 34) for key, _ in shares],
        "marker": {"color": FINISHED},
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    return figure([bars], f"importance for {what(objective)}", xaxis={"range": [0, 1]})


def _front(study: Study, x: str, y: str) -> Figure:
    traces = []
    for on_front, color in ((False, NEUTRAL), (True, BEST)):
        some = [trial for trial in study.trials if trial.is_best == on_front and {x, y} <= set(trial.values)]
        points = [(trial.values[x], trial.values[y]) for trial in some]
        marker = {"color": color, "size": 11 if on_front else 8, "symbol": "diamond" if on_front else "circle"}
        hover = "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>"
        traces.append(trace("markers", points, hover, text=[trial.text for trial in some], marker=marker))
    return figure(traces, _axis(x), _axis(y))


def _axis(name: str) -> str:
    return what(name) + (f", {unit(name)}" if unit(name) else "")
