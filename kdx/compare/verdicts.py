"""What a comparison says, in one sentence per metric: the group that val prefers, and how it differs from the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from kdx.compare.comparison import Comparison, PairedDifference, Row, cells_of, difference_of
from kdx.compare.metric_names import direction, split_of, what
from kdx.compare.metric_selection import numbers
from kdx.compare.statistics import number, paired

QUANTITIES = ("accuracy", "nll", "ece")
SCALED = ("nll", "ece")  # of which temperature scaling changes the value, so that the baseline has it too


def verdicts(comparison: Comparison) -> list[str]:
    """Return a sentence for accuracy, NLL and ECE of the student; none without a baseline.

    Of several groups, the one with the best mean on val is compared with its baseline on test: test chooses nothing.
    """
    by_label = {row.label: row for row in comparison.rows}
    candidates = [row for row in comparison.rows if row.against in by_label and row.group.baseline is None]
    return [text for quantity in QUANTITIES if (text := _verdict(comparison, candidates, by_label, quantity))]


def _verdict(comparison: Comparison, candidates: Sequence[Row], by_label: dict[str, Row], quantity: str) -> str:
    better = direction(f"test/student/{quantity}", comparison.higher_is_better)
    sign = 1 if better == "more" else -1
    on_val = {row.label: mean for row in candidates if (mean := _mean(row, f"val/student/{quantity}")) is not None}
    if not on_val:
        return ""
    chosen = by_label[max(on_val, key=lambda label: sign * on_val[label])]
    baseline = by_label[str(chosen.against)]
    reference = baseline.label.removeprefix("baseline=")
    split = split_of(name for run in chosen.group.finished.values() for name in numbers(run))
    name = f"{split}/student/{quantity}"
    own, others = (cells_of(row.group, [name]).get(name) for row in (chosen, baseline))
    values = {} if own is None or others is None else paired(own.values, others.values)
    if not values:
        return ""
    best = f", the best of {len(on_val)} groups on val," if len(on_val) > 1 else ""
    worded = _worded(difference_of(values), sign, f"{reference} on {split}")
    text = f"{what(name)[0].upper()}{what(name)[1:]}: {chosen.label}{best} {worded}"
    scaled = _mean(baseline, f"{split}/student_scaled/{quantity}") if quantity in SCALED else None
    if scaled is not None and own is not None:
        text += f"; {number(own.mean)}, where {reference} with temperature scaling has {number(scaled)}"
    return f"{text}."


def _worded(difference: PairedDifference, sign: int, reference: str) -> str:
    n = f"n = {len(difference.values)}"
    gap = f"{'+' if difference.mean > 0 else ''}{number(difference.mean)}"
    if difference.estimate is None:
        return f"differs from {reference} by {gap}; {n} is not enough for an interval"
    low, high = difference.estimate.interval.low, difference.estimate.interval.high
    interval = f"{gap} [{number(low)}, {number(high)}], {n}"
    if low <= 0 <= high:
        return f"is not clearly different from {reference} ({interval})"
    return f"is clearly {'better' if sign * low > 0 else 'worse'} than {reference} ({interval})"


def _mean(row: Row, name: str) -> float | None:
    cell = cells_of(row.group, [name]).get(name)
    return None if cell is None else cell.mean
