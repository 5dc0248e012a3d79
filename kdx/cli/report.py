"""kdx-report: the runs in some folders as one HTML page."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kdx.cli.run_folders import chosen, leave, parser, writable

PURPOSE = "Write runs as one HTML page: tables, curves, pictures and differences."
EXAMPLES = """
The page is one self-contained file that needs no network.

examples:
  kdx-report outputs -o report.html
  kdx-report outputs/sweeps/* -o report.html --where data.train_size=300
  kdx-report outputs -o report.html --watch      update the page while runs continue, until Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run kdx-report."""
    leave(_report, arguments)


def _report(arguments: Sequence[str] | None) -> None:
    arguments_parser = parser("kdx-report", PURPOSE, EXAMPLES)
    arguments_parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=Path("report.html"), help="default: report.html"
    )
    arguments_parser.add_argument(
        "--watch", nargs="?", const=10.0, type=float, metavar="SECONDS", help="update the page every SECONDS, by default 10"
    )
    options = arguments_parser.parse_args(arguments)
    if options.watch is not None and not options.watch > 0:
        raise ValueError(f"Invalid --watch {options.watch:g}: expected seconds above 0")
    path = writable(options.output)
    runs = chosen(options.runs, options.where, empty=options.watch is not None)
    from kdx.compare import page

    if options.watch is None:
        page.write(runs, path, against=options.against)
        print(path)
        return
    find = functools.partial(chosen, where=options.where, empty=True)
    page.watch(options.runs, path, against=options.against, seconds=options.watch, find=find)


if __name__ == "__main__":
    main()
