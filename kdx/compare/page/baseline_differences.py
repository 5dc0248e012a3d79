"""Differences to the baseline, as the table of groups shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdx.compare.comparison import PairedDifference, compare
from kdx.compare.metric_names import direction, shortened
from kdx.compare.metric_selection import added_metrics
from kdx.compare.page.material import Material
from kdx.compare.statistics import intervals, number
from kdx.compare.verdicts import verdicts

# Metrics of the student that get an interval. There are few, because each interval takes milliseconds.
METRICS = ("accuracy", "ece", "nll", "entropy", "brier", "top5", "ece_mass")


@dataclass(frozen=True)
class BaselineDifferences:
    """What the page says of baselines: sentences, caveats, a note for the table, and the differences of its cells.

    `differences` are, by (group label, metric), a text and "better", "worse" or "".
    """

    verdicts: Sequence[str]
    caveats: Sequence[str]
    note: str
    differences: Mapping[tuple[str, str], tuple[str, str]]


def baseline_differences(material: Material, against: str | None = None) -> BaselineDifferences:
    """Return the paired differences of all groups to the baseline, with caveats.

    Raises:
        ValueError: If no run, group or baseline is named `against`.
    """
    if not any(system.done for system in material.systems):
        caveats = [f"none of {len(material.runs)} runs is finished, so there is no comparison yet"] if material.runs else []
        return BaselineDifferences([], caveats, "", {})
    there = {name for run in material.done for name in run.metrics}
    quality = [*(f"student/{name}" for name in METRICS), *added_metrics(material.done)]
    metrics = [name for what in quality if (name := f"{material.split}/{what}") in there]
    with_row = {id(run) for system in material.rows for run in system.group.runs}
    some = [run for run in material.runs if id(run) in with_row or run.state != "finished"]
    comparison = compare(some if against is None else material.runs, metrics, against)
    differences = {
        (row.label, metric): (worded(difference), clear(difference, direction(metric, comparison.higher_is_better)))
        for row in comparison.rows
        for metric, difference in row.differences.items()
    }
    note = ""
    if comparison.against and differences:
        note = f"Second line: difference to {comparison.against}, paired by seed."
    if note and comparison.intervals:
        note = f"{note[:-1]}, with Student's 95 % interval. A triangle marks intervals that exclude 0: ▲ better, ▼ worse. "
        note += f"{intervals(comparison.intervals)}; without any effect, one in twenty excludes 0 by chance."
    labels = [system.label for system in material.systems]
    sentences, caveats = ([shortened(text, labels) for text in texts] for texts in (verdicts(comparison), comparison.caveats))
    return BaselineDifferences(sentences, caveats, shortened(note, labels), differences)


def worded(difference: PairedDifference) -> str:
    """Return the difference as text: "+0.012 [0.004, 0.020]"; with one pair of seeds "+0.012, n = 1"."""
    sign = "+" if difference.mean > 0 else ""
    text = sign + number(difference.mean)
    if difference.estimate is None:
        return f"{text}, n = {len(difference.values)}"
    interval = difference.estimate.interval
    return f"{text} [{number(interval.low)}, {number(interval.high)}]"


def clear(difference: PairedDifference, good: str) -> str:
    """Return "better" or "worse" if the interval excludes 0 and "more" or "less" is good, else ""."""
    if difference.estimate is None or not good or difference.estimate.std == 0:
        return ""
    interval = difference.estimate.interval
    if interval.low <= 0 <= interval.high:
        return ""
    return "better" if (interval.low > 0) == (good == "more") else "worse"
