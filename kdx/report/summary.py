"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

COLUMNS = ("accuracy", "nll", "ece", "entropy")


def summary(metrics: Mapping[str, float], resolution: Mapping[str, int], split: str, title: str) -> Table:
    """One row per network: the teacher at both resolutions, the student. Accuracy is a fraction; NLL, entropy in nats."""
    table = Table(title=title, title_justify="left")
    for name in ("", "split", "px", *COLUMNS, "agreement", "KL", "parameters"):
        table.add_column(name, justify="left" if name in ("", "split") else "right")
    at = {"teacher": resolution["teacher"], "student": resolution["student"]}
    rows = [
        ("teacher, raw", "preflight/teacher_raw", "val", at["teacher"], ""),
        ("teacher", "preflight/teacher", "val", at["teacher"], ""),
        ("teacher", "preflight/teacher_at_student_resolution", "val", at["student"], ""),
        ("teacher", f"{split}/teacher", split, at["teacher"], "teacher"),
        ("student", f"{split}/student", split, at["student"], "student"),
    ]
    for who, prefix, where, pixels, counted in rows:
        if f"{prefix}/entropy" not in metrics:
            continue
        numbers = [_number(metrics, f"{prefix}/{name}") for name in COLUMNS]
        pair = [_number(metrics, f"{split}/{name}") if who == "student" else "" for name in ("agreement", "kl")]
        count = f"{int(metrics[f'{counted}/parameters']):,}" if f"{counted}/parameters" in metrics else ""
        table.add_row(who, where, str(pixels), *numbers, *pair, count)
    return table


def _number(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else ""


def show(metrics: Mapping[str, float], resolution: Mapping[str, int], split: str, title: str, footer: str) -> None:
    """Print the table and a line under it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(summary(metrics, resolution, split, title))
    facts = []
    if "calibration_temperature" in metrics:
        facts.append(f"calibration temperature {metrics['calibration_temperature']:.3f}")
    if "images_per_second" in metrics:
        facts.append(f"{metrics['images_per_second']:,.0f} images/s")
    if "seconds" in metrics:
        facts.append(f"{metrics['seconds']:.0f} s")
    console.print(" · ".join([*facts, footer]), highlight=False, soft_wrap=True)
