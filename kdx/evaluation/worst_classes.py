"""Accuracy and confidence per class, and a table of the student's worst classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from kdx.metrics.assessment import AssessmentResult

PerClass = dict[str, list[list[float]]]  # by network [3,K]: number of examples, sum of confidences, number correct


def tables(assessed: Mapping[str, AssessmentResult]) -> PerClass:
    """Return the sums per class of each network; empty without labels."""
    return {network: result.per_class.tolist() for network, result in assessed.items() if result.per_class is not None}


def worst(per_class: PerClass, names: Sequence[str] | None, most: int = 10) -> Table:
    """Return a table of the `most` classes with the lowest accuracy of the student, the worst first."""
    count, _, correct = per_class["student"]
    present = [label for label in range(len(count)) if count[label]]
    table = Table(title=f"Student: worst classes (of {len(present)})", title_justify="left")
    table.add_column("class")
    for name in ("images", *(f"{network} {what}" for network in per_class for what in ("accuracy", "confidence"))):
        table.add_column(name, justify="right")
    for label in sorted(present, key=lambda label: correct[label] / count[label])[:most]:
        fractions = (sums[row][label] / count[label] for sums in per_class.values() for row in (2, 1))
        name = names[label] if names is not None and label < len(names) else str(label)
        table.add_row(name, str(int(count[label])), *(f"{fraction:.4f}" for fraction in fractions))
    return table
