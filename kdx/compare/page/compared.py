"""The comparison with the baseline, as the table of groups shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdx.compare.comparison import PairedDifference, compare
from kdx.compare.metric_names import direction
from kdx.compare.metric_selection import added_metrics
from kdx.compare.page.material import Material
from kdx.compare.statistics import number

METRICS = ("accuracy", "ece", "nll", "entropy", "brier", "top5", "ece_mass")  # of the student; an interval costs milliseconds


@dataclass(frozen=True)
class Compared:
    """`differences` by (group's label, metric): the difference in words, and "better" or "worse" where it is clear."""

    caveats: Sequence[str]
    note: str
    differences: Mapping[tuple[str, str], tuple[str, str]]


def compared(material: Material, against: str | None = None) -> Compared:
    """The paired differences of all groups to the baseline, and what has to be said of it.

    ValueError if what `against` names is not among the runs.
    """
    if not any(system.done for system in material.systems):
        states = "; none of them is finished, so there is nothing to compare yet" if material.runs else ""
        return Compared([f"{len(material.runs)} runs{states}"] if states else [], "", {})
    there = {name for run in material.done for name in run.metrics}
    quality = [*(f"student/{name}" for name in METRICS), *added_metrics(material.done)]
    metrics = [name for what in quality if (name := f"{material.split}/{what}") in there]
    found = compare(material.runs, metrics, against)
    differences = {
        (row.label, metric): (worded(difference), clear(difference, direction(metric, found.higher_is_better)))
        for row in found.rows
        for metric, difference in row.differences.items()
    }
    note = ""
    if found.against and differences:
        note = f"Second line: paired difference to {found.against}, with Student's 95 % interval; a triangle marks where it "
        note += "excludes 0, up for better, down for worse. "
        note += f"Of {found.intervals} intervals one in twenty excludes 0 by chance."
    return Compared(list(found.caveats), note, differences)


def worded(difference: PairedDifference) -> str:
    """The difference in words: "+0.012 [0.004, 0.020]"; with one pair of seeds "+0.012, n = 1"."""
    sign = "+" if difference.mean > 0 else ""
    text = sign + number(difference.mean)
    if difference.estimate is None:
        return f"{text}, n = {len(difference.values)}"
    interval = difference.estimate.interval
    return f"{text} [{number(interval.low)}, {number(interval.high)}]"


def clear(difference: PairedDifference, good: str) -> str:
    """Return "better" or "worse" where the interval excludes 0; nothing if neither "more" nor "less" is good."""
    if difference.estimate is None or not good or difference.estimate.std == 0:
        return ""
    interval = difference.estimate.interval
    if interval.low <= 0 <= interval.high:
        return ""
    return "better" if (interval.low > 0) == (good == "more") else "worse"
