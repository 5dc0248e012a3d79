"""kdx-compare: a table of the runs in some folders, with paired differences to a baseline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kdx.cli.run_folders import chosen, leave, parser, writable

if TYPE_CHECKING:
    from kdx.compare.comparison import Comparison

SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".txt": "table"}
PIVOT = "methods as rows, pairs of teacher and student as columns; METRIC: default accuracy; as markdown or latex"
PURPOSE = "Compare runs in a table: mean and spread over seeds, differences to a baseline."
EXAMPLES = """
Runs that differ only in their seed are one group: mean ± standard deviation. Against a baseline,
differences are paired by seed, with Student's 95 % interval. Differences in budget, data, code,
hardware or seeds are listed below the table.

examples:
  kdx-compare outputs                            everything, against its baseline if there is one kind
  kdx-compare outputs/sweeps/2026-11-22_18-25-52 --against scratch
  kdx-compare outputs --against supervised_digits --where data.train_size=300
  kdx-compare outputs --metrics 'test/student/*' seconds --sort test/student/nll
  kdx-compare outputs --pivot -o pairs.tex       a paper's table: methods by pairs of teacher and student
  kdx-compare outputs -o table.tex               also .md, .csv, .txt, or --format
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run kdx-compare."""
    leave(_compare, arguments)


def _compare(arguments: Sequence[str] | None) -> None:
    arguments_parser = parser("kdx-compare", PURPOSE, EXAMPLES)
    arguments_parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="flat names or globs, after RUNS; default: quality and cost"
    )
    arguments_parser.add_argument("--sort", metavar="METRIC", help="sort by this metric, best mean first")
    arguments_parser.add_argument(
        "--format", choices=("table", "markdown", "csv", "latex"), help="default: by the name of -o, else table"
    )
    arguments_parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write to this file instead of the terminal"
    )
    arguments_parser.add_argument("--pivot", nargs="?", const="", metavar="METRIC", help=PIVOT)
    options = arguments_parser.parse_args(arguments)
    suffix = options.output.suffix.lower() if options.output else ".txt"
    if options.format is None and suffix not in SUFFIXES:
        raise ValueError(f"Unknown format of {options.output}: use one of {', '.join(SUFFIXES)}, or give --format")
    runs = chosen(options.runs, options.where)
    from kdx.compare import tables
    from kdx.compare.comparison import compare as compare_runs

    names = [name for text in options.metrics for name in text.split(",")] if options.metrics else None
    comparison = compare_runs(runs, names, options.against)
    if options.sort is not None:
        comparison = tables.ordered(comparison, options.sort)
    form = options.format or SUFFIXES[suffix]
    if options.pivot is not None:
        _write(_pivot(comparison, options.pivot, form), options.output)
        return
    if options.output is None and form == "table" and sys.stdout.isatty():
        from rich.console import Console

        tables.show(comparison, Console())
        return
    text = tables.FORMATS[form](comparison)
    for caveat in comparison.caveats if form == "csv" else ():  # other formats include the caveats below the table
        print(f"kdx: note: {caveat}", file=sys.stderr)
    _write(text, options.output)


def _pivot(comparison: Comparison, metric: str, form: str) -> str:
    from kdx.compare import pivot
    from kdx.compare.metric_names import split_of

    if form not in pivot.FORMATS:
        raise ValueError(f"--pivot has no format {form}: use one of {', '.join(pivot.FORMATS)}, or -o with .md or .tex")
    names = [name for row in comparison.rows for run in row.group.finished.values() for name in run.metrics]
    return pivot.FORMATS[form](pivot.pivot(comparison, metric or f"{split_of(names)}/student/accuracy"))


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    writable(output).write_text(text, encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
