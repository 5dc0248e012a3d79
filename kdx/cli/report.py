"""kdx-report: the runs under some folders as one HTML page."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kdx.cli.run_folders import chosen, leave, parser, writable

PURPOSE = "Write runs as one HTML page: tables, curves, pictures and differences."
EXAMPLES = """
One file that holds everything it shows and needs no network.

examples:
  kdx-report outputs -o report.html
  kdx-report outputs/sweeps/* -o report.html --where data.train_size=300
  kdx-report outputs -o report.html --watch      written again while runs go on, until Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run kdx-report."""
    leave(_report, arguments)


def _report(arguments: Sequence[str] | None) -> None:
    options = parser("kdx-report", PURPOSE, EXAMPLES)
    options.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("report.html"), help="default: report.html")
    options.add_argument(
        "--watch", nargs="?", const=10.0, type=float, metavar="SECONDS", help="look again every 10 s, or so many"
    )
    asked = options.parse_args(arguments)
    if asked.watch is not None and not asked.watch > 0:
        raise ValueError(f"Invalid --watch {asked.watch:g}: expected seconds above 0")
    path = writable(asked.output)
    runs = chosen(asked.runs, asked.where, empty=asked.watch is not None)
    from kdx.compare import page

    if asked.watch is None:
        page.write(runs, path, against=asked.against)
        print(path)
        return
    find = functools.partial(chosen, where=asked.where, empty=True)
    page.watch(asked.runs, path, against=asked.against, seconds=asked.watch, find=find)


if __name__ == "__main__":
    main()
