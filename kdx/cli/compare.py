"""kdx-compare and kdx-report: what finished runs say, as a table or as a page. They start without torch and without Hydra."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from kdx.compare.runs import RunRecord, find_runs
from kdx.compare.where import choose, parse

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".txt": "table"}
RUNS = "run folders, sweeps, any folder that holds some, or globs; teachers only if given themselves"
WHERE = "only runs whose config has this value, e.g. temperature.value=4, student.architecture='*resnet8', baseline=none"
AGAINST = "what the others are compared with: a baseline (scratch), a group's label or a run's name"

COMPARE = """
Runs that differ only in their seed are one group: mean ± standard deviation. Against a baseline, differences are paired by
seed, with Student's 95 % interval. What makes runs unlike each other (budget, data, code, hardware, seeds) stands below.

examples:
  kdx-compare outputs                                          everything, against its baseline if there is one kind
  kdx-compare outputs/sweeps/2026-11-22_18-25-52 --against scratch
  kdx-compare outputs --against supervised_digits --where data.train_size=300
  kdx-compare outputs --metrics 'test/student/*' seconds --sort test/student/nll
  kdx-compare outputs -o table.tex                             also .md, .csv, .txt, or --format
"""
REPORT = """
One file that holds everything it shows and needs no network.

examples:
  kdx-report outputs -o report.html
  kdx-report outputs/sweeps/* -o report.html --where data.train_size=300
  kdx-report outputs -o report.html --watch                    written again while runs go on, until Ctrl-C
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as all commands of kdx do."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"kdx: {message}; {self.prog} --help shows examples\n")


def compare(arguments: Sequence[str] | None = None) -> NoReturn:
    """kdx-compare: the runs under some folders beside each other, with paired differences to a baseline."""
    _leave(_compare, arguments)


def report(arguments: Sequence[str] | None = None) -> NoReturn:
    """kdx-report: the runs under some folders as one HTML page."""
    _leave(_report, arguments)


def _compare(arguments: Sequence[str] | None) -> None:
    parser = _parser("kdx-compare", "Compare runs.", COMPARE)
    parser.add_argument("--against", metavar="NAME", help=AGAINST)
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="flat names or globs, after RUNS; default: quality and cost"
    )
    parser.add_argument("--sort", metavar="METRIC", help="the best mean first")
    parser.add_argument(
        "--format", choices=("table", "markdown", "csv", "latex"), help="default: by the name of -o, else table"
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write there instead of the terminal")
    asked = parser.parse_args(arguments)
    suffix = asked.output.suffix.lower() if asked.output else ".txt"
    if asked.format is None and suffix not in SUFFIXES:
        raise ValueError(f"{asked.output}: which format? Name it {', '.join(SUFFIXES)}, or give --format")
    runs = _chosen(asked.runs, asked.where)
    from kdx.compare import tables
    from kdx.compare.comparison import compare as compare_runs

    names = [name for text in asked.metrics for name in text.split(",")] if asked.metrics else None
    comparison = compare_runs(runs, names, asked.against)
    if asked.sort is not None:
        comparison = tables.ordered(comparison, asked.sort)
    form = asked.format or SUFFIXES[suffix]
    if asked.output is None and form == "table" and sys.stdout.isatty():
        from rich.console import Console

        tables.show(comparison, Console())
        return
    text = tables.FORMATS[form](comparison)
    for caveat in comparison.caveats if form == "csv" else ():  # the other formats have them below the table
        print(f"kdx: note: {caveat}", file=sys.stderr)
    if asked.output is None:
        sys.stdout.write(text)
        return
    _writable(asked.output).write_text(text, encoding="utf-8")
    print(asked.output)


def _report(arguments: Sequence[str] | None) -> None:
    parser = _parser("kdx-report", "Write runs as one HTML page.", REPORT)
    parser.add_argument("--against", metavar="NAME", help=AGAINST)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("report.html"), help="default: report.html")
    parser.add_argument(
        "--watch", nargs="?", const=10.0, type=float, metavar="SECONDS", help="look again every 10 s, or so many"
    )
    asked = parser.parse_args(arguments)
    if asked.watch is not None and not asked.watch > 0:
        raise ValueError(f"--watch {asked.watch:g}: give a number of seconds above 0")
    path = _writable(asked.output)
    runs = _chosen(asked.runs, asked.where, empty=asked.watch is not None)
    from kdx.compare import page

    if asked.watch is None:
        page.write(runs, path, against=asked.against)
        print(path)
        return
    found = functools.partial(_chosen, where=asked.where, empty=True)
    page.watch(asked.runs, path, against=asked.against, seconds=asked.watch, find=found)


def _parser(name: str, what: str, examples: str) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog=name, description=what, epilog=examples, formatter_class=form)
    parser.add_argument("runs", nargs="+", metavar="RUNS", help=RUNS)
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=WHERE)
    return parser


def _chosen(roots: Sequence[str | Path], where: Sequence[str], empty: bool = False) -> list[RunRecord]:
    """The runs under the roots that meet all conditions. ValueError if there are none, unless that is fine."""
    conditions = [parse(text) for text in where]
    runs = find_runs(roots)
    if not runs and not empty:
        raise ValueError(f"there are no runs in {', '.join(map(str, roots))}: give a folder with runs in it, such as outputs")
    return choose(runs, conditions) if runs else []


def _writable(path: Path) -> Path:
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _leave(work: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None) -> NoReturn:
    """Do the work and leave: with 0, with 2 and a sentence after a mistake, with 1 where the disk objects."""
    try:
        work(arguments)
        sys.stdout.flush()
    except ValueError as error:
        print(f"kdx: {error}", file=sys.stderr)
        sys.exit(MISUSED)
    except BrokenPipeError:  # `kdx-compare outputs | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        print(f"kdx: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
