"""per_class.csv: accuracy and mean confidence of each network on each class."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Table = Sequence[Sequence[float]]  # [3,K]: per label, number of examples, sum of confidences, number of correct predictions


TypedTable = tuple[list[str], list[list[Any]]]  # columns and rows; the cells of a column have one type, or are None
TYPES: Mapping[str, type] = {"split": str, "class": int, "name": str, "count": int}  # of columns; all others are float


def write(path: Path, tables: Mapping[str, Mapping[str, Table]], names: Sequence[str] | None = None) -> None:
    """Write a row per split and class: split, class, name, count, and NETWORK_accuracy and NETWORK_confidence (mean).

    Args:
        path: The CSV file.
        tables: Split -> network -> table.
        names: The names of the classes; a class without a name gets its number. Cells of classes without examples are empty.
    """
    all_networks = list(dict.fromkeys(network for split in tables.values() for network in split))
    columns = [f"{network}_{what}" for network in all_networks for what in ("accuracy", "confidence")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*TYPES, *columns])
        writer.writeheader()
        for split, networks in tables.items():
            count = next(iter(networks.values()))[0]
            for k in range(len(count)):
                row = {"split": split, "class": k, "name": named(k, names), "count": int(count[k])}
                for network, (number, confidence, correct) in networks.items():
                    row[f"{network}_accuracy"] = _share(correct[k], number[k])
                    row[f"{network}_confidence"] = _share(confidence[k], number[k])
                writer.writerow(row)


def read(path: Path) -> TypedTable:
    """Return columns and rows of per_class.csv. Names are text, also "1" and "007"; an empty number is None."""
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = list(csv.reader(file))
    types = [TYPES.get(column, float) for column in columns]
    return columns, [
        [kind(cell) if cell or kind is str else None for kind, cell in zip(types, row, strict=True)] for row in rows
    ]


def named(label: int, names: Sequence[str] | None) -> str:
    """Return the name of a class; its number if it has none."""
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def _share(part: float, whole: float) -> float | str:
    return part / whole if whole and math.isfinite(part) else ""
