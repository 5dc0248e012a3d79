"""The table of verdicts at the end of kdx-evidence."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from kdx.compare.statistics import number
from kdx.evidence.findings import Finding

STYLES = {"holds": "green", "fails": "red", "undecided": "yellow", "not run": "dim"}


def verdict_table(findings: Sequence[Finding]) -> Table:
    """One row per claim: its verdict, and of the comparison that decided it the mean and the interval."""
    table = Table(title="", title_justify="left")
    for name in ("claim", "verdict", "weakest comparison", "claimed", "mean", "95 % interval"):
        table.add_column(name, overflow="fold")
    order = ("fails", "undecided", "holds")
    for finding in findings:
        style = STYLES[finding.verdict]
        head = (f"{finding.family}.{finding.name}", f"[{style}]{finding.verdict}[/]")
        if finding.missing:
            table.add_row(*head, finding.missing, "", "", "")
            continue
        weakest = min(finding.comparisons, key=lambda comparison: order.index(comparison.verdict))
        found = weakest.estimate
        interval = f"{number(found.interval.low)} to {number(found.interval.high)}"
        table.add_row(*head, f"{weakest.metric} of {weakest.what}", weakest.claim, number(found.mean), interval)
    return table


def show(findings: Sequence[Finding], footer: str) -> None:
    """Print the table and a line under it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(verdict_table(findings))
    console.print(footer, highlight=False, soft_wrap=True)
