"""The classes one by one: those that the student knows least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from kdx.metrics.assessment import AssessmentResult

PerClass = dict[str, list[list[float]]]  # by network [3,K]: how many examples, the sum of their confidence, how many are right


def tables(assessed: Mapping[str, AssessmentResult]) -> PerClass:
    """The classes as each network knows them; empty without labels."""
    return {who: found.per_class.tolist() for who, found in assessed.items() if found.per_class is not None}


def worst(found: PerClass, names: Sequence[str] | None, most: int = 10) -> Table:
    """A row for each of the classes on which the student is right most seldom, the worst first."""
    count, _, right = found["student"]
    seen = [label for label in range(len(count)) if count[label]]
    made = Table(title=f"the student's worst classes, of {len(seen)}", title_justify="left")
    made.add_column("class")
    for name in ("images", *(f"{who} {what}" for who in found for what in ("accuracy", "confidence"))):
        made.add_column(name, justify="right")
    for label in sorted(seen, key=lambda label: right[label] / count[label])[:most]:
        shares = (table[row][label] / count[label] for table in found.values() for row in (2, 1))
        name = str(label) if names is None else names[label]
        made.add_row(name, str(int(count[label])), *(f"{share:.4f}" for share in shares))
    return made
