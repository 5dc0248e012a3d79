"""What kdx-compare and kdx-report share: their arguments and exit status. They start without torch and without Hydra."""

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
RUNS = "run folders, sweeps, any folder that holds some, or globs; teachers only if given themselves"
WHERE = "only runs whose config has this value, e.g. temperature.value=4, student.architecture='*resnet8', baseline=none"
AGAINST = "what the others are compared with: a baseline (scratch), a group's label or a run's name"


class _Parser(argparse.ArgumentParser):
    """Prints a mistake as all commands of kdx do."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"kdx: {message}; {self.prog} --help shows examples\n")


def parser(name: str, purpose: str, examples: str) -> argparse.ArgumentParser:
    """A parser with RUNS, --where and --against."""
    made = _Parser(prog=name, description=purpose, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", nargs="+", metavar="RUNS", help=RUNS)
    made.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=WHERE)
    made.add_argument("--against", metavar="NAME", help=AGAINST)
    return made


def chosen(roots: Sequence[str | Path], where: Sequence[str], empty: bool = False) -> list[RunRecord]:
    """The runs under the roots that meet all conditions. ValueError if there are none, unless `empty` allows it."""
    conditions = [parse(text) for text in where]
    runs = find_runs(roots)
    if not runs and not empty:
        raise ValueError(f"No runs in {', '.join(map(str, roots))}: give a folder that contains runs, such as outputs")
    return choose(runs, conditions) if runs else []


def writable(path: Path) -> Path:
    """The path of a file, with its folder made. ValueError if it is a folder."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def leave(work: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None) -> NoReturn:
    """Do the work and exit: with 0, with 2 and a sentence after a mistake, with 1 if a file cannot be read or written."""
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
