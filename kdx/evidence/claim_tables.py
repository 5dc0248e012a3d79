"""Tables of findings and systems as Markdown, CSV and plain data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kdx.compare.statistics import number
from kdx.evidence.findings import ClaimComparison, Finding

PLAIN = {"holds": "hold", "fails": "fail", "undecided": "undecided", "not run": "not run"}
MARKS = {"holds": "**holds**", "fails": "**fails**", "undecided": "undecided", "not run": "not run"}


def claims_table(findings: Iterable[Finding]) -> str:
    """Return a Markdown table with a row per comparison; the first row of a claim has its sentence and verdict."""
    lines = ["| claim | verdict | comparison | claimed | mean ± std | 95 % interval | n |", "|---|---|---|---|---|---|---|"]
    for finding in findings:
        words = f"**{finding.name.replace('_', ' ')}**: {finding.sentence}"
        if finding.missing:
            lines.append(f"| {_cell(words)} | not run | {_cell(finding.missing)} | | | | |")
        for i, comparison in enumerate(() if finding.missing else finding.comparisons):
            first = f"| {_cell(words)} | {MARKS[finding.verdict]} " if i == 0 else "| | "
            verdict = f" ({comparison.verdict})" if len(finding.comparisons) > 1 else ""
            estimate = comparison.estimate
            interval = f"[{number(estimate.interval.low)}, {number(estimate.interval.high)}]"
            numbers = f"{number(estimate.mean, estimate.std)} | {interval}"
            what = f"`{comparison.metric}` of {comparison.what}{verdict}"
            lines.append(f"{first}| {what} | {comparison.claim} | {numbers} | {estimate.n} |")
    return "\n".join(lines)


def systems_table(systems: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return a Markdown table with a row per system and a column per metric: mean ± standard deviation over seeds."""
    metrics = list(dict.fromkeys(metric for values in systems.values() for metric in values))
    lines = ["| system | n | " + " | ".join(f"`{metric}`" for metric in metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for name, values in systems.items():
        count = max((len(seeds) for seeds in values.values()), default=0)
        cells = [_summary(values.get(metric, ())) for metric in metrics]
        lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def claims_csv(findings: Iterable[Finding]) -> str:
    """Return CSV with a row per comparison, with Student's and the bootstrap interval."""
    names = "family claim paper verdict comparison metric claimed comparison_verdict n mean std "
    names += "low high bootstrap_low bootstrap_high"
    rows = []
    for finding in findings:
        head = [finding.family, finding.name, finding.paper, finding.verdict]
        if finding.missing:
            rows.append([*head, finding.missing, *[""] * 10])
        for comparison in () if finding.missing else finding.comparisons:
            rows.append([*head, comparison.what, comparison.metric, comparison.claim, *_numbers(comparison)])
    return _csv(names.split(), rows)


def values_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Return CSV of (family, system, seed, metric, value) rows."""
    return _csv(["family", "system", "seed", "metric", "value"], rows)


def as_data(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain data for JSON, with the value of every seed."""
    whole = {"family": finding.family, "claim": finding.name, "paper": finding.paper, "sentence": finding.sentence}
    whole |= {"verdict": finding.verdict, "missing": finding.missing, "note": finding.note}
    parts = []
    for comparison in () if finding.missing else finding.comparisons:
        estimate = comparison.estimate
        parts.append(
            {
                "compared": comparison.what,
                "metric": comparison.metric,
                "claimed": comparison.claim,
                "verdict": comparison.verdict,
                "by_seed": {str(seed): value for seed, value in comparison.values.items()},
                "n": estimate.n,
                "mean": estimate.mean,
                "std": estimate.std,
                "interval": [estimate.interval.low, estimate.interval.high],
                "bootstrap_interval": [estimate.bootstrap.low, estimate.bootstrap.high],
            }
        )
    return {**whole, "comparisons": parts}


def _summary(values: Sequence[float]) -> str:
    if not len(values):
        return ""
    return number(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def _numbers(comparison: ClaimComparison) -> list[Any]:
    estimate = comparison.estimate
    bounds = [estimate.interval.low, estimate.interval.high, estimate.bootstrap.low, estimate.bootstrap.high]
    return [comparison.verdict, estimate.n, estimate.mean, estimate.std, *bounds]


def _csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
