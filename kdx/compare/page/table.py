"""The tables of runs and of groups, as columns and cells that the page can sort, filter and hide."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kdx.compare.comparison import marked
from kdx.compare.metric_names import COSTS, finite, ordered, unit, what, whose
from kdx.compare.page.baseline_differences import BaselineDifferences
from kdx.compare.page.charts import Look
from kdx.compare.page.material import Material, System
from kdx.compare.runs import RunRecord
from kdx.compare.statistics import number

SHOWN = ("student/accuracy", "student/ece", "student/nll", "student/entropy", "teacher/accuracy")
SETTINGS_SHOWN = ("resolution.student", "temperature.value", "trainer.max_epochs", "student.architecture")
MOST_METRICS, MOST_SETTINGS = 30, 15  # columns available; the details of a run show all values
HIDDEN_PATHS = ("seed", "name", "outputs", "tags", "ckpt_path", "baselines", "measured")
HIDDEN_GROUPS = ("logger", "callbacks")


@dataclass(frozen=True)
class Column:
    """A column. `key` is the flat name of a metric or the path of a setting; filters use it as well."""

    key: str
    head: str
    under: str = ""
    numeric: bool = True
    shown: bool = True


@dataclass(frozen=True)
class TableCell:
    """A cell. Rows are sorted by `value`, a number or a text; None sorts last. `under` is a second, smaller line."""

    text: str
    value: float | str | None
    under: str = ""
    mark: str = ""  # "better" or "worse" than the baseline, if the interval of the difference excludes 0


@dataclass(frozen=True)
class TableRow:
    """A run or a group; a click opens the details of the run `target`."""

    id: str
    target: str
    label: str
    state: str
    look: Look | None
    cells: Sequence[TableCell]
    note: str = ""
    full: str = ""  # the full label, if `label` is shortened
    under: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows; an additional first column holds the row labels."""

    columns: Sequence[Column]
    rows: Sequence[TableRow]


def run_table(material: Material) -> Table:
    """Return the table with a row per run, including damaged runs."""
    systems = {id(run): system for system in material.rows for run in system.group.runs}
    settings = varying(material.listed)
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
    for run in material.listed:
        cells = [
            readers[column.key](run) if column.key in readers
            else _setting(run.flat_config.get(column.key)) if column.key in settings
            else _measured(column.key, finite(run.metrics, column.key))
            for column in columns
        ]  # fmt: skip
        system = systems.get(id(run))
        under = system.short if system and system.short != run.name else ""
        look = system.look if system else None
        rows.append(
            TableRow(
                material.id(run), material.id(run), marked(run.name, run), run.state, look, cells, run.problem, under=under
            )
        )
    return Table(columns, rows)


def group_table(material: Material, against_baseline: BaselineDifferences) -> Table:
    """Return the table with a row per group: mean ± standard deviation over seeds, and the difference to the baseline."""
    metrics = _metric_columns(material)
    columns = [Column("n", "n", "seeds"), *metrics]
    rows = []
    for index, system in enumerate(material.rows):
        failed = [run for run in system.others if run.state == "failed"]
        left = {"failed": len(failed), "unfinished": len(system.others) - len(failed)}
        under = ", ".join(f"+ {number} {what}" for what, number in left.items() if number)
        cells = [TableCell(str(len(system.done)), len(system.done), under)]
        cells += [_mean(system, column.key, against_baseline) for column in metrics]
        target = material.id(system.group.runs[0])
        states = [run.state for run in system.others]
        state = "finished" if not states else next((one for one in ("running", "failed", "stopped") if one in states), "pruned")
        label, error = marked(system.short, *system.done), next((run.problem for run in failed), "")
        rows.append(TableRow(f"group-{index}", target, label, state, system.look, cells, error, system.label))
    return Table(columns, rows)


def varying(runs: Sequence[RunRecord]) -> list[str]:
    """Return the config paths whose values differ between the runs, the most common ones first."""
    configs = [run.flat_config for run in runs if run.state != "damaged"]
    paths = dict.fromkeys(path for config in configs for path in config)
    differing = [path for path in paths if _is_setting(path) and len({plain(config.get(path)) for config in configs}) > 1]
    return sorted(differing, key=lambda path: (path not in SETTINGS_SHOWN, path.endswith("_target_"), path))[:MOST_SETTINGS]


def plain(value: Any) -> str:
    """Return a config value as a user would write it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _is_setting(path: str) -> bool:
    return path not in HIDDEN_PATHS and path.partition(".")[0] not in HIDDEN_GROUPS


def _metric_columns(material: Material) -> list[Column]:
    available = {name for run in material.listed for name in run.metrics}
    on_split = [name for name in available if name.startswith(f"{material.split}/")]
    visible = [f"{material.split}/{name}" for name in SHOWN]
    costs = [name for name in (*(f"student/{cost}" for cost in COSTS), *COSTS, "images_per_second") if name in available]
    names = [name for name in visible if name in available] + [name for name in ordered(on_split) if name not in visible]
    chosen = [*names[: MOST_METRICS - len(costs)], *costs]
    return [Column(name, what(name), _under(name), shown=name in visible) for name in chosen]


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
    """Return a value as text: three significant digits; parameters and MACs in k, M or G."""
    if name.endswith(("parameters", "macs")):
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= size:
                return f"{value / size:.3g} {letter}"
    return number(value, spread)


def _mean(system: System, name: str, against_baseline: BaselineDifferences) -> TableCell:
    values = system.values(name)
    if not values:
        return TableCell("", None)
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
    under, mark = against_baseline.differences.get((system.label, name), ("", ""))
    return TableCell(digits(name, mean, spread), mean, under, mark)
