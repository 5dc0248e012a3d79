"""The overview: a table of runs and one of groups, as columns and cells that the page sorts, filters and hides."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kdx.compare.metric_names import COSTS, finite, ordered, unit, what, whose
from kdx.compare.page.charts import Look
from kdx.compare.page.baseline_differences import BaselineDifferences
from kdx.compare.page.material import Material, System
from kdx.compare.runs import RunRecord
from kdx.compare.statistics import number

SHOWN = ("student/accuracy", "student/ece", "student/nll", "student/entropy", "teacher/accuracy")
SETTINGS_SHOWN = ("resolution.student", "temperature.value", "trainer.max_epochs", "student.architecture")
MOST_METRICS, MOST_SETTINGS = 30, 15  # columns that can be chosen; everything is in a run's detail
UNSPOKEN = ("seed", "name", "outputs", "tags", "ckpt_path", "baselines")
HIDDEN_GROUPS = ("logger", "callbacks")


@dataclass(frozen=True)
class Column:
    """`key` is the flat name of a metric or a setting's path, by which a filter asks for it too."""

    key: str
    head: str
    under: str = ""
    numeric: bool = True
    shown: bool = True


@dataclass(frozen=True)
class TableCell:
    """`value` is what sorts: a number or a text; None sorts last. `under` is a second, smaller line."""

    text: str
    value: float | str | None
    under: str = ""
    mark: str = ""  # "better" or "worse" than the baseline, where the interval leaves no doubt


@dataclass(frozen=True)
class TableRow:
    """A run or a group; `target` is the run that opens."""

    id: str
    target: str
    label: str
    state: str
    look: Look | None
    cells: Sequence[TableCell]
    note: str = ""
    full: str = ""  # what is too long for the cell
    under: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows; the first column, the name, is the row's label."""

    columns: Sequence[Column]
    rows: Sequence[TableRow]


def run_table(material: Material) -> Table:
    """A row per run, damaged ones too."""
    systems = {id(run): system for system in material.systems for run in system.group.runs}
    settings = varying(material.runs)
    columns = [
        Column("seed", "seed"),
        Column("state", "state", numeric=False),
        *_metric_columns(material),
        *(Column(key, key.rpartition(".")[2], key.rpartition(".")[0], False, key in SETTINGS_SHOWN) for key in settings),
        Column("selection", "selected epoch", "", shown=False),
        Column("started", "started", numeric=False, shown=False),
    ]
    readers: dict[str, Callable[[RunRecord], TableCell]] = {
        "seed": lambda run: TableCell("" if run.seed is None else str(run.seed), run.seed),
        "state": lambda run: TableCell(run.state, run.state),
        "selection": lambda run: TableCell(*_epoch(run)),
        "started": lambda run: TableCell((run.started or "").replace("T", " ")[:16], run.started),
    }
    rows = []
    for run in material.runs:
        cells = [
            readers[column.key](run) if column.key in readers
            else _setting(run.flat_config.get(column.key)) if column.key in settings
            else _measured(column.key, finite(run.metrics, column.key))
            for column in columns
        ]  # fmt: skip
        system = systems.get(id(run))
        under = system.short if system and system.short != run.name else ""
        look = system.look if system else None
        rows.append(TableRow(material.id(run), material.id(run), run.name, run.state, look, cells, run.problem, under=under))
    return Table(columns, rows)


def group_table(material: Material, found: BaselineDifferences) -> Table:
    """A row per group: mean ± standard deviation over its finished runs, and the paired difference to the baseline."""
    metrics = _metric_columns(material)
    columns = [Column("n", "n", "runs"), *metrics]
    rows = []
    for index, system in enumerate(material.systems):
        cells = [
            TableCell(str(len(system.done)), len(system.done), f"+ {len(system.others)} unfinished" if system.others else "")
        ]
        cells += [_mean(system, column.key, found) for column in metrics]
        target = material.id(system.group.runs[0])
        state = (
            "finished" if not system.others else "running" if any(r.state == "running" for r in system.others) else "stopped"
        )
        rows.append(TableRow(f"group-{index}", target, system.short, state, system.look, cells, full=system.label))
    return Table(columns, rows)


def varying(runs: Sequence[RunRecord]) -> list[str]:
    """Config paths whose values differ between the runs, those that people vary most in front."""
    configs = [run.flat_config for run in runs if run.state != "damaged"]
    paths = dict.fromkeys(path for config in configs for path in config)
    found = [path for path in paths if _spoken(path) and len({plain(config.get(path)) for config in configs}) > 1]
    return sorted(found, key=lambda path: (path not in SETTINGS_SHOWN, path.endswith("_target_"), path))[:MOST_SETTINGS]


def plain(value: Any) -> str:
    """A config value as a user would write it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _spoken(path: str) -> bool:
    return path not in UNSPOKEN and path.partition(".")[0] not in HIDDEN_GROUPS


def _metric_columns(material: Material) -> list[Column]:
    there = {name for run in material.runs for name in run.metrics}
    on_split = [name for name in there if name.startswith(f"{material.split}/")]
    wanted = [f"{material.split}/{name}" for name in SHOWN]
    costs = [name for name in (*(f"student/{cost}" for cost in COSTS), *COSTS, "images_per_second") if name in there]
    names = [name for name in wanted if name in there] + [name for name in ordered(on_split) if name not in wanted]
    chosen = [*names[: MOST_METRICS - len(costs)], *costs]
    return [Column(name, what(name), _under(name), shown=name in wanted) for name in chosen]


def _under(name: str) -> str:
    return ", ".join(part for part in (whose(name), unit(name)) if part)


def _epoch(run: RunRecord) -> tuple[str, float | None]:
    epoch = run.selection.get("epoch")
    return (str(epoch), float(epoch)) if isinstance(epoch, int | float) else ("", None)


def _setting(value: Any) -> TableCell:
    if value is None:
        return TableCell("", None)
    number_like = isinstance(value, int | float) and not isinstance(value, bool)
    return TableCell(
        plain(value).rpartition(".")[2] if isinstance(value, str) else plain(value), value if number_like else plain(value)
    )


def _measured(name: str, value: float | None) -> TableCell:
    return TableCell("" if value is None else digits(name, value), value)


def digits(name: str, value: float, spread: float | None = None) -> str:
    """A value as a table has it: fractions to three digits, counts in thousands and millions."""
    if name.endswith(("parameters", "macs")):
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= size:
                return f"{value / size:.3g} {letter}"
    return number(value, spread)


def _mean(system: System, name: str, found: BaselineDifferences) -> TableCell:
    values = system.values(name)
    if not values:
        return TableCell("", None)
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
    under, mark = found.differences.get((system.label, name), ("", ""))
    return TableCell(digits(name, mean, spread), mean, under, mark)
