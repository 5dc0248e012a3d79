"""The result of an evaluation, its tables in the terminal, and the files beside the JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from kdx.data.source import Images
from kdx.evaluation import shift_report, worst_classes
from kdx.report import disagreement, per_class


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of the clean images and under each shift, sums per class, and the images with the largest disagreement."""

    clean: dict[str, float]  # by flat name
    shift: list[dict[str, Any]]  # "corruption", "severity", "metrics"; "side" in px if the resolution is shifted
    classes: worst_classes.PerClass
    furthest: list[dict[str, Any]]


def show(
    result: EvaluationResult, images: Images, split: str, title: str, names: Sequence[str] | None, stem: Path, console: Console
) -> None:
    """Print the tables and write STEM-per_class.csv, STEM-disagreement.png and STEM.png (the shifts), if there is such data.

    Args:
        result: The result.
        images: The evaluated images.
        split: The name of the split.
        title: The title of the table and the figure.
        names: The names of the classes, if known.
        stem: The path of the files without suffix.
        console: The console for the tables.
    """
    console.print(shift_report.table(result.clean, result.shift, split, title))
    if result.classes:
        per_class.write(stem.with_name(f"{stem.name}-per_class.csv"), {split: result.classes}, names)
        console.print(worst_classes.worst(result.classes, names))
    if result.furthest:
        originals = [images[row["index"]] for row in result.furthest]
        disagreement.picture(originals, result.furthest, names).save(stem.with_name(f"{stem.name}-disagreement.png"))
    if result.shift:
        shift_report.picture(result.clean, result.shift, split, title).savefig(stem.with_name(f"{stem.name}.png"), dpi=150)
    console.print(f"{stem}.json", highlight=False, soft_wrap=True)
