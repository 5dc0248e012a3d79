"""Summary at the end of a sweep: the comparison of its runs in the terminal, as Markdown, as CSV and as an HTML page."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kdx.compare import comparison, page, tables
from kdx.compare.runs import find_runs

MOST_METRICS = 4  # number of metrics that fit into a terminal


def write(folder: Path, against: str | None = None) -> None:
    """Print the comparison of the runs under `folder`; write comparison.md, comparison.csv and report.html there.

    Args:
        folder: The folder of the sweep.
        against: The baseline; if None, the baseline of the runs if they have exactly one kind.

    Raises:
        ValueError: If no run is finished.
    """
    runs = find_runs([folder])
    whole = comparison.compare(runs, against=against)
    (folder / "comparison.md").write_text(tables.markdown(whole), encoding="utf-8")
    (folder / "comparison.csv").write_text(tables.comma_separated(whole), encoding="utf-8")
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    names = [name for name in whole.metrics if "/student/" in name][:MOST_METRICS]
    tables.show(comparison.compare(runs, names or None, against), console)
    console.print(page.write(runs, folder / "report.html", against=against), highlight=False, soft_wrap=True)
