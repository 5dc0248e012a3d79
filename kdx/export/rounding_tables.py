"""The report of an int8 file as a table in the terminal and as a section of the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdx.export.request import LEDGER

WHAT = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE", "entropy": "entropy"}
COLUMNS = ("split", "file", *WHAT.values(), "T")
Report = Mapping[str, Any]


def rows(report: Report) -> list[list[str]]:
    """Return the rows of the table, in the order of COLUMNS: each split before and after rounding, without and with T."""
    fitted = {name: report[name]["temperature"] for name in ("fp32", "int8")}
    kinds = [
        ("fp32", "student", "fp32", None),
        ("fp32", "student_scaled", "fp32, its T", fitted["fp32"]),
        ("int8", "student", "int8", None),
        ("int8", "student_at_earlier", "int8, T of fp32", fitted["fp32"]),
        ("int8", "student_scaled", "int8, its T", fitted["int8"]),
    ]
    table = []
    for split in report["agreement"]:
        for name, network, title, temperature in kinds:
            values = [report[name]["metrics"].get(f"{split}/{network}/{what}") for what in WHAT]
            if any(value is not None for value in values):
                cells = ["" if value is None else f"{value:.4f}" for value in values]
                table.append([split, title, *cells, "" if temperature is None else f"{temperature:.4f}"])
    return table


def facts(report: Report) -> list[str]:
    """Return sentences on agreement, size and latency."""
    splits, latency = report["agreement"], report["latency"]
    same = ", ".join(f"{share:.4f} on {split}" for split, share in splits.items())
    largest = ", ".join(f"{report['max_difference'][split]:.3g} on {split}" for split in splits)
    before, after = (report[name]["bytes"] for name in ("fp32", "int8"))
    return [
        f"agreement of fp32 and int8 in the predicted class: {same}; largest difference of a logit: {largest}",
        f"size: {before:,} bytes in fp32, {after:,} in int8 ({after / before:.2f})",
        f"latency of one image: {latency['fp32_ms_1']:.3f} ms in fp32, {latency['int8_ms_1']:.3f} ms in int8 "
        f"({latency['protocol']}). {latency['verdict']}",
        f"ranges of the activations: smallest and largest values on {report['images']} training images",
    ]


def table(report: Report, title: str) -> Table:
    """Return the table for the terminal."""
    drawn = Table(title=title, title_justify="left")
    for name in COLUMNS:
        drawn.add_column(name, justify="left" if name in COLUMNS[:2] else "right")
    before = None
    for split, *cells in rows(report):
        drawn.add_row(split if split != before else "", *cells)
        before = split
    return drawn


def show(folder: Path) -> None:
    """Print the table of each file in int8 of an export."""
    console = Console() if Console().is_terminal else Console(width=150)
    for name, report in json.loads((folder / LEDGER).read_text(encoding="utf-8"))["formats"].items():
        if "rounding" in report:
            console.print(table(report["rounding"], f"{name}: rounding to int8, and T fitted on val"))
            console.print("\n".join(fact[:1].upper() + fact[1:] for fact in facts(report["rounding"])), highlight=False)


def section(report: Report, file: str, *, folded: bool) -> str:
    """Return the text of the model card on an int8 file: table and sentences."""
    temperature = report["int8"]["temperature"]
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(report)]
    where = "is **included** in the file" if folded else "is **not** included in the file, whose metadata has it"
    how = (
        "No calibration temperature was fitted, because val has no labels."
        if temperature is None
        else f"Rounding changes the confidence, so T was fitted on val again: T = {temperature:.4f} {where}."
    )
    text = "\n".join(f"- {fact}" for fact in facts(report))
    return f"`{file}` has weights and activations in int8.\n\n" + "\n".join(lines) + f"\n\n{how}\n\n{text}"
