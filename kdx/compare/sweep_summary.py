"""What stands at the end of a sweep: its runs compared, in the terminal, as Markdown and CSV, and as a page."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kdx.compare import comparison, page, tables
from kdx.compare.runs import find_runs

MOST = 4  # metrics that fit into a terminal


def write(folder: Path, against: str | None = None) -> None:
    """Print how the runs under `folder` compare, with a baseline if it is named or the only one; write files and a page there.

    They are comparison.md, comparison.csv and report.html. ValueError if there is nothing to compare.
    """
    runs = find_runs([folder])
    whole = comparison.compare(runs, against=against)
    (folder / "comparison.md").write_text(tables.markdown(whole), encoding="utf-8")
    (folder / "comparison.csv").write_text(tables.comma_separated(whole), encoding="utf-8")
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    names = [name for name in whole.metrics if "/student/" in name][:MOST]
    tables.show(comparison.compare(runs, names or None, against), console)
    console.print(page.write(runs, folder / "report.html", against=against), highlight=False, soft_wrap=True)
