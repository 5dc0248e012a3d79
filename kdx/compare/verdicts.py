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
    """Return a sentence for accuracy, NLL and ECE of the student, as far as they were measured; none for baselines alone.

    Of several groups, the one with the best mean on val is compared with its baseline on test: test chooses nothing.
    """
    rows = [row for row in comparison.rows if row.group.baseline is None]
    with_baseline = [row for row in rows if row.against is not None]
    alone = [row for row in rows if row.against is None and row.label != comparison.against]
    best = (
        "the best of {} groups on val" if not (with_baseline and alone) else "the best on val of {} groups that have a baseline"
    )
    return [text for what in QUANTITIES if (text := _verdict(comparison, with_baseline or rows, best, what))]


def _verdict(comparison: Comparison, candidates: Sequence[Row], best: str, quantity: str) -> str:
    better = direction(f"test/student/{quantity}", comparison.higher_is_better)
    sign = 1 if better == "more" else -1
    on_val = {row.label: mean for row in candidates if (mean := _mean(row, f"val/student/{quantity}")) is not None}
    if not on_val:
        return ""
    by_label = {row.label: row for row in comparison.rows}
    chosen = by_label[max(on_val, key=lambda label: sign * on_val[label])]
    equal = sum(mean == on_val[chosen.label] for mean in on_val.values())
    best = f"the first of {equal} groups that are equally good on val" if equal > 1 else best.format(len(on_val))
    split = split_of(name for run in chosen.group.finished.values() for name in numbers(run))
    name = f"{split}/student/{quantity}"
    own = cells_of(chosen.group, [name]).get(name)
    if own is None:
        return ""
    text = f"{what(name)[0].upper()}{what(name)[1:]}: {chosen.label}{f', {best},' if len(on_val) > 1 else ''}"
    optimistic = "; val has chosen the group as well, which is optimistic" if split == "val" and len(on_val) > 1 else ""
    if chosen.against is None:
        trained = any(row.group.baseline is not None for row in comparison.rows)
        text += f" has {number(own.mean, own.std)} on {split} (n = {own.n}){optimistic}; not compared with a baseline"
        return f"{text}." if trained else f"{text}: baselines=[scratch] trains one."
    baseline = by_label[chosen.against]
    reference = baseline.label.removeprefix("baseline=")
    others = cells_of(baseline.group, [name]).get(name)
    values = {} if others is None else paired(own.values, others.values)
    if not values:
        return ""
    text += f" {_worded(difference_of(values), sign, f'{reference} on {split}')}{optimistic}"
    scaled = _mean(baseline, f"{split}/student_scaled/{quantity}") if quantity in SCALED else None
    if scaled is not None:
        text += f"; {number(own.mean)}, where {reference} with temperature scaling has {number(scaled)}"
    return f"{text}."


def _worded(difference: PairedDifference, sign: int, reference: str) -> str:
    n = f"n = {len(difference.values)}"
    gap = f"{'+' if difference.mean > 0 else ''}{number(difference.mean)}"
    if not any(difference.values.values()):
        return f"has exactly the numbers of {reference} ({n})"
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
