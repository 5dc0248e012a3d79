"""per_class.csv: how each network does on each class."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Table = Sequence[Sequence[float]]  # [3,K]: per label how many examples, the sum of their confidence, how many are right


def write(path: Path, tables: Mapping[str, Mapping[str, Table]], names: Sequence[str] | None = None) -> None:
    """Write a row per split and class: split, class, name, count, and who_accuracy and who_confidence (the mean) of everyone.

    `tables` are by split and who. A class without a name is called by its number; one without an example has no accuracy.
    """
    everyone = list(dict.fromkeys(who for split in tables.values() for who in split))
    columns = [f"{who}_{what}" for who in everyone for what in ("accuracy", "confidence")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["split", "class", "name", "count", *columns])
        writer.writeheader()
        for split, networks in tables.items():
            count = next(iter(networks.values()))[0]
            for k in range(len(count)):
                row = {"split": split, "class": k, "name": named(k, names), "count": int(count[k])}
                for who, (number, confidence, right) in networks.items():
                    row[f"{who}_accuracy"] = _share(right[k], number[k])
                    row[f"{who}_confidence"] = _share(confidence[k], number[k])
                writer.writerow(row)


def named(label: int, names: Sequence[str] | None) -> str:
    """What a class is called: its name, if it has one, else its number."""
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def _share(part: float, whole: float) -> float | str:
    return part / whole if whole and math.isfinite(part) else ""
