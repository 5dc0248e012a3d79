"""Arguments and exit status of kdx-compare and kdx-report, without imports of torch and Hydra."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from kdx.cli.pipes import close_pipe
from kdx.compare.runs import RunRecord, find_runs
from kdx.compare.where import choose, parse

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
RUNS = "run folders, sweeps, folders that contain runs, or globs; teachers only if named explicitly"
WHERE = "only runs whose config has this value, e.g. temperature.value=4, student.architecture='*resnet8', baseline=none"
AGAINST = "reference of the comparison: a baseline (scratch), a group's label or a run's name"


class Parser(argparse.ArgumentParser):
    """A parser that prints errors in the format of all kdx commands."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"kdx: {message}; {self.prog} --help shows examples\n")


def parser(name: str, purpose: str, examples: str) -> argparse.ArgumentParser:
    """Return a parser with RUNS, --where and --against."""
    arguments = Parser(prog=name, description=purpose, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", nargs="+", metavar="RUNS", help=RUNS)
    arguments.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=WHERE)
    arguments.add_argument("--against", metavar="NAME", help=AGAINST)
    return arguments


def chosen(roots: Sequence[str | Path], where: Sequence[str], empty: bool = False) -> list[RunRecord]:
    """Return the runs in the roots that meet all conditions. ValueError if there are none, unless `empty`."""
    conditions = [parse(text) for text in where]
    runs = find_runs(roots)
    if not runs and not empty:
        raise ValueError(
            f"No runs found in {', '.join(map(str, roots))}; expected a folder that contains runs, such as outputs"
        )
    return choose(runs, conditions) if runs else []


def writable(path: Path) -> Path:
    """Return the path of a file after creating its folder. ValueError if the path is a folder."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: use -o FILE with the path of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def leave(work: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None) -> NoReturn:
    """Call `work` and exit with status 0, 2 for invalid arguments, or 1 if a file cannot be read or written."""
    try:
        work(arguments)
        sys.stdout.flush()
    except ValueError as error:
        print(f"kdx: {error}", file=sys.stderr)
        sys.exit(MISUSED)
    except BrokenPipeError:
        close_pipe()
    except OSError as error:
        print(f"kdx: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
