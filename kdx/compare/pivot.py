"""A table of methods by pairs of teacher and student, as papers print it: one metric, in per cent where it is a fraction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kdx.compare.comparison import Cell, Comparison, cells_of
from kdx.compare.groups import Group, settings
from kdx.compare.metric_names import UNITS, direction
from kdx.compare.statistics import paired, student_interval
from kdx.compare.tables import SPLITS, notes, tex
from kdx.config.baselines import DETERMINED

# What makes a pair: config paths that name the teacher and the student, and may differ between the columns of a row.
PAIR = ("student", "teacher.network", "teacher.checkpoint", "teacher.key", "teacher.run", "teacher.members", "resolution")
TEACHER = "teacher"  # the first row, where a teacher was measured
Pair = tuple[str, str]  # names of teacher and student; the teacher's is "" for a baseline without one


@dataclass(frozen=True)
class Entry:
    """A number of the table; `is_bold` if it is the best of its column or not clearly worse than the best, paired by seed."""

    cell: Cell
    is_bold: bool


@dataclass(frozen=True)
class Pivot:
    """The entries of one metric by method and pair; `teachers` has the mean of each pair's teacher."""

    metric: str
    pairs: tuple[Pair, ...]
    methods: tuple[str, ...]
    entries: Mapping[tuple[str, Pair], Entry]
    teachers: Mapping[Pair, float]
    notes: tuple[str, ...]


def pivot(comparison: Comparison, metric: str) -> Pivot:
    """Return the table of a metric of the student.

    A method is what differs between groups of one pair, in the words of an override; baselines keep their names. A baseline
    without a teacher belongs to each pair of its student.

    Raises:
        ValueError: If no group has the metric.
    """
    groups = [row.group for row in comparison.rows]
    names = _methods(groups)
    taught = [group for group in groups if _pair(group)[0]] or groups
    students = {_pair(group): _student(group) for group in taught}
    pairs = tuple(students)
    cells: dict[tuple[str, Pair], Cell] = {}
    for group, name in zip(groups, names, strict=True):
        cell = cells_of(group, [metric]).get(metric)
        own = _pair(group)
        for pair, student in students.items():
            if cell is not None and (pair == own or (not own[0] and student == _student(group))):
                cells[_free(name, pair, cells), pair] = cell
    if not cells:
        raise ValueError(f"No group has the metric '{metric}': name a metric of the student, such as test/student/accuracy")
    sign = {"more": 1, "less": -1}.get(direction(metric, comparison.higher_is_better), 0)
    entries: dict[tuple[str, Pair], Entry] = {}
    for pair in pairs:
        column = {name: cell for (name, of_pair), cell in cells.items() if of_pair == pair}
        best = max(column, key=lambda name: sign * column[name].mean) if sign and len(column) > 1 else None
        for name, cell in column.items():
            is_bold = best is not None and (name == best or not _clearly_worse(cell, column[best], sign))
            entries[name, pair] = Entry(cell, is_bold)
    methods = sorted(dict.fromkeys(name for name, _ in cells), key=lambda name: not name.startswith("baseline="))
    return Pivot(metric, pairs, tuple(methods), entries, _teachers(groups, pairs, metric), _notes(comparison, metric))


def markdown(table: Pivot) -> str:
    """Return the table as Markdown: a row per method, a column per pair."""
    heads = [f"{teacher} → {student}" if teacher else student for teacher, student in table.pairs]
    rows = [f"| {table.metric}{_unit(table.metric)} | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    rows += [f"| {name} | {' | '.join(cells)} |" for name, cells in _rows(table, lambda text: text, lambda text: f"**{text}**")]
    return "\n".join([*rows, "", *(f"- {note}" for note in table.notes)]) + "\n"


def latex(table: Pivot) -> str:
    """Return the table as a LaTeX tabular for the package booktabs, with teachers above students; notes are comments."""

    def number(text: str) -> str:
        mean, _, spread = text.partition(" ± ")
        return rf"{mean} \pm {spread}" if spread else mean

    def plain(text: str) -> str:
        return f"${number(text)}$"

    def bold(text: str) -> str:
        return rf"$\mathbf{{{number(text)}}}$"

    heads = [["Teacher", *(teacher for teacher, _ in table.pairs)], ["Student", *(student for _, student in table.pairs)]]
    rows = [f"% {table.metric}{_unit(table.metric)}", rf"\begin{{tabular}}{{l{'c' * len(table.pairs)}}}", r"\toprule"]
    rows += [" & ".join(map(tex, head)) + r" \\" for head in heads if any(head[1:])] + [r"\midrule"]
    rows += [" & ".join([tex(name), *cells]) + r" \\" for name, cells in _rows(table, plain, bold)]
    if table.teachers:
        rows.insert(-len(table.methods), r"\midrule")
    rows += [r"\bottomrule", r"\end{tabular}", *(f"% {' '.join(note.split())}" for note in table.notes)]
    return "\n".join(rows) + "\n"


FORMATS: Mapping[str, Callable[[Pivot], str]] = {"table": markdown, "markdown": markdown, "latex": latex}


def _rows(table: Pivot, plain: Callable[[str], str], bold: Callable[[str], str]) -> list[tuple[str, list[str]]]:
    scale = _scale(table.metric)
    rows = []
    if table.teachers:
        means = [table.teachers.get(pair) for pair in table.pairs]
        rows.append((TEACHER, ["" if mean is None else plain(_number(mean, scale)) for mean in means]))
    for method in table.methods:
        texts = []
        for pair in table.pairs:
            entry = table.entries.get((method, pair))
            texts.append("" if entry is None else (bold if entry.is_bold else plain)(_text(entry.cell, scale)))
        rows.append((method, texts))
    return rows


def _text(cell: Cell, scale: float) -> str:
    return _number(cell.mean, scale) + ("" if cell.std is None else f" ± {_number(cell.std, scale)}")


def _number(value: float, scale: float) -> str:
    return f"{scale * value:.{2 if scale > 1 else 3}f}"


def _scale(metric: str) -> float:
    """Return 100 for metrics on images without a unit, which are fractions, else 1."""
    return 100.0 if metric.startswith(SPLITS) and metric.rpartition("/")[2] not in UNITS else 1.0


def _unit(metric: str) -> str:
    return ", %" if _scale(metric) > 1 else ""


def _clearly_worse(cell: Cell, best: Cell, sign: int) -> bool:
    """Return whether the interval of the paired difference to the best excludes 0; with fewer than two pairs, it is unknown."""
    gaps = list(paired(best.values, cell.values).values())
    if len(gaps) < 2:
        return sign * cell.mean < sign * best.mean
    interval = student_interval(gaps)
    return min(sign * interval.low, sign * interval.high) > 0


def _methods(groups: Sequence[Group]) -> list[str]:
    """Return the name of each group's method: the settings beside PAIR that differ within a pair."""
    parts = settings(groups)
    by_pair: dict[Pair, list[int]] = {}
    for i, group in enumerate(groups):
        if group.baseline is None:
            by_pair.setdefault(_pair(group), []).append(i)
    within = {
        path
        for members in by_pair.values()
        for path in dict.fromkeys(path for i in members for path in parts[i])
        if len({parts[i].get(path) for i in members}) > 1 and not f"{path}.".startswith(tuple(f"{own}." for own in PAIR))
    }
    names = []
    for group, own in zip(groups, parts, strict=True):
        fixed = tuple(f"{path}." for path in DETERMINED.get(group.baseline or "", ()))
        words = [f"baseline={group.baseline}"] if group.baseline is not None else []
        words += [f"{path}={value}" for path, value in own.items() if path in within and not f"{path}.".startswith(fixed)]
        names.append(" ".join(words) or group.runs[0].name)
    return names


def _free(name: str, pair: Pair, taken: Mapping[tuple[str, Pair], Cell]) -> str:
    """Return the name, with a number if another group of the pair has it, as with baselines at several learning rates."""
    candidates = [name, *(f"{name} #{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if (candidate, pair) not in taken)


def _pair(group: Group) -> Pair:
    flat = group.runs[0].flat_config
    teacher, (student, pixels) = flat.get("teacher.network.architecture"), _student(group)
    return f"{teacher}, {flat.get('resolution.teacher')} px" if teacher else "", f"{student}, {pixels} px"


def _student(group: Group) -> tuple[str, str]:
    flat = group.runs[0].flat_config
    return str(flat.get("student.architecture")), str(flat.get("resolution.student"))


def _teachers(groups: Sequence[Group], pairs: Sequence[Pair], metric: str) -> dict[Pair, float]:
    name = metric.replace("/student/", f"/{TEACHER}/")
    means: dict[Pair, list[float]] = {}
    for group in groups if name != metric else ():
        cell = cells_of(group, [name]).get(name)
        if cell is not None and _pair(group) in pairs:
            means.setdefault(_pair(group), []).append(cell.mean)
    return {pair: sum(values) / len(values) for pair, values in means.items()}


def _notes(comparison: Comparison, metric: str) -> tuple[str, ...]:
    first, *rest = [note for note in notes(comparison) if not note.startswith(("Second line", "Bold", "(no interval)"))]
    seeds = sorted({row.n for row in comparison.rows})
    bold = (
        f"n = {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds. Bold: the best of a column, and what is not "
    )
    bold += "clearly worse: Student's 95 % interval of the difference, paired by seed, includes 0"
    return (first, f"{bold}; with one seed, the best only.", *rest)
