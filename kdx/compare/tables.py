"""A comparison as a table for the terminal, as Markdown, as CSV or as LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdx.compare.comparison import Cell, Comparison, PairedDifference, Row
from kdx.compare.metric_names import direction
from kdx.compare.metric_selection import nearest
from kdx.compare.statistics import intervals, number
from kdx.compare.verdicts import verdicts

COLUMN = 21  # width of a terminal column in characters; "[−0.0580, −0.0026]" fits
SPLITS = ("val/", "test/", "last/", "preflight/")  # prefixes of metrics measured on images; the others are costs
CSV_COLUMNS = (
    "group,baseline,seeds,selection,metric,n,mean,std,against,pairs,difference,low,high,bootstrap_low,bootstrap_high,note"
)


@dataclass(frozen=True)
class Line:
    """One line of a table: a group, or the differences of a group to its baseline."""

    head: str
    n: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]
    is_difference: bool


def rich_table(comparison: Comparison) -> Table:
    """Return a table for the terminal: a row per group and, below it, its paired differences with 95 % intervals."""
    table = Table(title_justify="left", caption_justify="left", show_edge=False, pad_edge=False)
    table.add_column("group", overflow="fold", no_wrap=False)
    table.add_column("n", justify="right")
    for name in comparison.metrics:
        table.add_column(escape(name.replace("/", "/\n")), justify="right")
    for line in lines(comparison):
        cells = [escape(cell.replace(" [", "\n[")) for cell in line.cells]  # the interval below its mean
        marked = [f"[bold]{cell}[/]" if best else cell for cell, best in zip(cells, line.best, strict=True)]
        head = "  " * line.is_difference + line.head
        table.add_row(escape(head), line.n, *marked, style="dim" if line.is_difference else "")
    return table


def terminal(comparison: Comparison, width: int | None = None) -> str:
    """Return the table, its notes and the caveats as plain text; `width` in characters, by default unlimited."""
    file = io.StringIO()
    console = Console(file=file, width=width or 400 + COLUMN * len(comparison.metrics), color_system=None)
    show(comparison, console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def show(comparison: Comparison, console: Console) -> None:
    """Print verdicts, the table, its notes and the caveats. The table is split if the console is too narrow for all columns."""
    for sentence in verdicts(comparison):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    labels = max(len(line.head) + 2 for line in lines(comparison))
    fitting = max(1, (console.width - labels - 6) // COLUMN)
    for start in range(0, len(comparison.metrics), fitting):
        console.print(rich_table(replace(comparison, metrics=comparison.metrics[start : start + fitting])))
    for note in notes(comparison):
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def markdown(comparison: Comparison) -> str:
    """Return the table, its notes and the caveats as Markdown."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    heads = ["group", "n", *(f"`{name}`" for name in comparison.metrics)]
    rows = ["| " + " | ".join(heads) + " |", "|---|--:" + "|--:" * len(comparison.metrics) + "|"]
    for line in lines(comparison):
        cells = [f"**{text}**" if best else text for text, best in zip(line.cells, line.best, strict=True)]
        head = "&nbsp; " * line.is_difference + line.head
        rows.append("| " + " | ".join(cell(text) for text in (head, line.n, *cells)) + " |")
    first = [cell(f"- {sentence}") for sentence in verdicts(comparison)]
    return "\n".join([*first, *([""] if first else []), *rows, "", *(f"- {note}" for note in notes(comparison))]) + "\n"


def latex(comparison: Comparison) -> str:
    """Return a LaTeX tabular for the package booktabs; notes and caveats are comments below it."""
    heads = ["group", "$n$", *(tex(name) for name in comparison.metrics)]
    rows = [rf"\begin{{tabular}}{{lr{'r' * len(comparison.metrics)}}}", r"\toprule", " & ".join(heads) + r" \\", r"\midrule"]
    for line in lines(comparison):
        cells = [rf"\textbf{{{tex(text)}}}" if best else tex(text) for text, best in zip(line.cells, line.best, strict=True)]
        indent = r"\quad " if line.is_difference else ""
        rows.append(" & ".join([indent + tex(line.head), line.n, *cells]) + r" \\")
    rows += [r"\bottomrule", r"\end{tabular}", *(f"% {' '.join(note.split())}" for note in notes(comparison))]
    return "\n".join(rows) + "\n"


def comma_separated(comparison: Comparison) -> str:
    """Return CSV with a row per group and metric: n, mean, std and both intervals, or the reason why there are none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS.split(","))
    for row in comparison.rows:
        for name, cell in row.cells.items():
            head = [row.label, row.group.baseline or "", " ".join(map(str, cell.values)), row.selection, name]
            writer.writerow([*head, cell.n, cell.mean, "" if cell.std is None else cell.std, *_difference_columns(row, name)])
    return file.getvalue()


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "table": terminal,
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}


def ordered(comparison: Comparison, metric: str) -> Comparison:
    """Return the comparison with its rows sorted by `metric`, best mean first.

    If neither direction of the metric is better, the largest mean comes first.

    Raises:
        ValueError: If the table has no such column.
    """
    if metric not in comparison.metrics:
        raise ValueError(f"Unknown column in --sort {metric}.{nearest(metric, comparison.metrics)}")
    sign = 1 if direction(metric, comparison.higher_is_better) == "less" else -1
    worst = float("inf")
    rows = sorted(comparison.rows, key=lambda row: sign * row.cells[metric].mean if metric in row.cells else worst)
    return replace(comparison, rows=tuple(rows))


def lines(comparison: Comparison) -> list[Line]:
    """Return the rows of a table as text; the best mean of a column is marked under the condition stated in `notes`."""
    best = _best(comparison)
    rows = []
    for i, row in enumerate(comparison.rows):
        texts = tuple(_mean(row.cells.get(name), row.n) for name in comparison.metrics)
        marks = tuple(best.get(name) == i for name in comparison.metrics)
        rows.append(Line(row.title, str(row.n), texts, marks, False))
        if row.differences:
            pairs = max(len(difference.values) for difference in row.differences.values())
            texts = tuple(_gap(row.differences.get(name), pairs) for name in comparison.metrics)
            rows.append(Line(f"\N{MINUS SIGN} {row.against}", str(pairs), texts, (False,) * len(texts), True))
    return rows


def notes(comparison: Comparison) -> list[str]:
    """Return the notes below a table: how to read it, the selection rule, and every caveat."""
    rules: dict[str, list[str]] = {}
    for row in comparison.rows:
        rules.setdefault(row.selection, []).append(row.label)
    several = len(rules) > 1
    selected = "; ".join(f"{rule} ({', '.join(labels[:4])})" if several else rule for rule, labels in rules.items())
    texts = [f"Mean ± standard deviation over n seeds; weights selected: {selected}."]
    if any(row.differences for row in comparison.rows):
        text = "Second line of a group: mean difference to the baseline, paired by seed; n is the number of pairs."
        if comparison.intervals:
            text = text.replace(";", ", with Student's 95 % interval;")
            text += f" {intervals(comparison.intervals)}; without any effect, one in 20 excludes 0 by chance."
        texts.append(text)
    if comparison.intervals:
        texts.append(
            "Bold: best mean of the column, if the interval of its difference to the baseline excludes 0 and the difference is "
            "an improvement. The best mean is not tested against the other groups. Costs are never bold."
        )
    if any(difference.why for row in comparison.rows for difference in row.differences.values()):
        texts.append("(no interval): an interval needs at least two pairs of seeds; run more, such as seed=0,1,2,3,4.")
    return [*texts, *(f"Note: {caveat}." for caveat in comparison.caveats)]


def tex(text: str) -> str:
    """Return the text with the special characters of LaTeX escaped."""
    return re.sub(f"[{re.escape(''.join(_TEX))}]", lambda match: _TEX[match[0]], text)


_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu "  # from α to ω
_GREEK += "nu xi o pi rho varsigma sigma tau upsilon phi chi psi omega"
_SIGNS = {"→": "to", "←": "gets", "≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx", "×": "times", "·": "cdot", "∞": "infty"}
_TEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    **{character: rf"$\{command}$" for character, command in _SIGNS.items()},
    **{chr(ord("α") + i): rf"$\{name}$" if len(name) > 1 else name for i, name in enumerate(_GREEK.split())},
}


def _best(comparison: Comparison) -> dict[str, int]:
    """Return, per metric, the index of the row with the best mean, if that row is significantly better than its baseline."""
    best = {}
    for name in comparison.metrics:
        sign = {"more": 1, "less": -1}.get(direction(name, comparison.higher_is_better), 0) if name.startswith(SPLITS) else 0
        means = {i: sign * row.cells[name].mean for i, row in enumerate(comparison.rows) if name in row.cells}
        if not sign or len(means) < 2:
            continue
        first = max(means, key=means.__getitem__)
        difference = comparison.rows[first].differences.get(name)
        if difference is not None and difference.estimate is not None:
            interval = difference.estimate.interval
            if min(sign * interval.low, sign * interval.high) > 0:
                best[name] = first
    return best


def _mean(cell: Cell | None, n: int) -> str:
    if cell is None:
        return ""
    text = number(cell.mean, cell.std or None)
    return text if cell.n == n else f"{text} (n={cell.n})"


def _gap(difference: PairedDifference | None, pairs: int) -> str:
    if difference is None:
        return ""
    sign = "+" if difference.mean > 0 else ""
    if difference.estimate is None:
        return f"{sign}{number(difference.mean)} (no interval)"
    if difference.estimate.std == 0:
        return "0" if difference.mean == 0 else f"{sign}{number(difference.mean)} (in every pair)"
    interval = difference.estimate.interval
    fewer = "" if len(difference.values) == pairs else f" (n={len(difference.values)})"
    return f"{sign}{number(difference.mean)} [{number(interval.low)}, {number(interval.high)}]{fewer}"


def _difference_columns(row: Row, name: str) -> Sequence[object]:
    difference = row.differences.get(name)
    if difference is None:
        return [row.against or "", *[""] * 7]
    head = [row.against, len(difference.values), difference.mean]
    if difference.estimate is None:
        return [*head, *[""] * 4, difference.why]
    interval, bootstrap = difference.estimate.interval, difference.estimate.bootstrap
    return [*head, interval.low, interval.high, bootstrap.low, bootstrap.high, ""]
