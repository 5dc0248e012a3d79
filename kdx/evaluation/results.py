"""What an evaluation found, and how it is shown: tables on the terminal, files beside the JSON."""

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
    """Flat metrics of the clean images and of each shift, the classes by network, and where student and teacher differ most."""

    clean: dict[str, float]
    shift: list[dict[str, Any]]  # corruption, severity, metrics, and side where it is the resolution that is shifted
    classes: worst_classes.PerClass
    furthest: list[dict[str, Any]]


def show(
    found: EvaluationResult, images: Images, split: str, title: str, names: Sequence[str] | None, stem: Path, console: Console
) -> None:
    """Print the tables, and write what else there is: `-per_class.csv`, `-disagreement.png`, and a picture of the shifts."""
    console.print(shift_report.table(found.clean, found.shift, split, title))
    if found.classes:
        per_class.write(stem.with_name(f"{stem.name}-per_class.csv"), {split: found.classes}, names)
        console.print(worst_classes.worst(found.classes, names))
    if found.furthest:
        originals = [images[row["index"]] for row in found.furthest]
        disagreement.picture(originals, found.furthest, names).save(stem.with_name(f"{stem.name}-disagreement.png"))
    if found.shift:
        shift_report.picture(found.clean, found.shift, split, title).savefig(stem.with_name(f"{stem.name}.png"), dpi=150)
    console.print(f"{stem}.json", highlight=False, soft_wrap=True)
