"""The table of verdicts at the end of kdx-evidence."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from kdx.compare.statistics import number
from kdx.evidence.findings import Finding

STYLES = {"holds": "green", "fails": "red", "undecided": "yellow", "not run": "dim"}


def verdict_table(findings: Sequence[Finding]) -> Table:
    """Return a table with a row per claim: its verdict, and mean and interval of the comparison that decides it."""
    table = Table(title="", title_justify="left")
    for name in ("claim", "verdict", "decisive comparison", "claimed", "mean", "95 % interval"):
        table.add_column(name, overflow="fold")
    order = ("fails", "undecided", "holds")
    for finding in findings:
        style = STYLES[finding.verdict]
        head = (f"{finding.family}.{finding.name}", f"[{style}]{finding.verdict}[/]")
        if finding.missing:
            table.add_row(*head, finding.missing, "", "", "")
            continue
        decisive = min(finding.comparisons, key=lambda comparison: order.index(comparison.verdict))
        estimate = decisive.estimate
        interval = f"{number(estimate.interval.low)} to {number(estimate.interval.high)}"
        table.add_row(*head, f"{decisive.metric} of {decisive.what}", decisive.claim, number(estimate.mean), interval)
    return table


def show(findings: Sequence[Finding], footer: str) -> None:
    """Print the table of verdicts and the line `footer`."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(verdict_table(findings))
    console.print(footer, highlight=False, soft_wrap=True)
