"""Metrics of an evaluation, clean and under shift, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from kdx.report.plots import COLORS, INK, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHAT = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "entropy": "entropy (nats)"}
NETWORKS = {"student": "student", "student_scaled": "student, T", "teacher": "teacher"}  # and their titles
Row = Mapping[str, Any]  # "corruption", "severity", "metrics"; "side" in px if the resolution is shifted


def table(clean: Mapping[str, float], shift: Sequence[Row], split: str, title: str) -> Table:
    """Return a table with a row for the clean images and one per shift and severity: student, teacher, agreement.

    Args:
        clean: Metrics of the clean images by flat name.
        shift: One row per shift and severity.
        split: The split in the metric names.
        title: The title of the table.
    """
    metrics_table = Table(title=title, title_justify="left")
    networks = [network for network in NETWORKS if f"{split}/{network}/entropy" in clean]
    columns = [(network, name) for network in networks for name in WHAT if f"{split}/{network}/{name}" in clean]
    columns = [column for column in columns if column != ("student_scaled", "accuracy")]  # which is the student's
    metrics_table.add_column("shift")
    metrics_table.add_column("severity", justify="right")
    for network, name in columns:
        metrics_table.add_column(f"{NETWORKS[network]}\n{WHAT[name].split(' ')[0]}", justify="right")
    if "teacher" in networks:
        metrics_table.add_column("\nagreement", justify="right")
    names = [f"{split}/{network}/{name}" for network, name in columns]
    names += [f"{split}/agreement"] if "teacher" in networks else []
    extra = [name.split("/")[1] for name in clean if name.startswith(f"{split}/student_at_") and name.endswith("/entropy")]
    metrics_table.add_row("none", "", *_numbers(clean, names))
    for network in extra:
        at_px = [name.replace(f"{split}/student/", f"{split}/{network}/") if "/student/" in name else "" for name in names]
        metrics_table.add_row(network.replace("student_at_", "student at ") + " px", "", *_numbers(clean, at_px))
    before = None
    for row in shift:
        severity = f"{row['side']} px" if "side" in row else str(row["severity"])
        corruption = row["corruption"] if row["corruption"] != before else ""
        metrics_table.add_row(corruption, severity, *_numbers(row["metrics"], names))
        before = row["corruption"]
    return metrics_table


def _numbers(metrics: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]


def picture(clean: Mapping[str, float], shift: Sequence[Row], split: str, title: str) -> Figure:
    """Return a figure of metrics against severity, a color per shift; solid: student, dashed: teacher; 0: clean images.

    The arguments are those of `table`.
    """
    has_teacher = f"{split}/teacher/entropy" in clean
    panels = [name for name in WHAT if f"{split}/student/{name}" in clean] + (["agreement"] if has_teacher else [])
    drawing, axes = figure(len(panels), 1.0 + 2.9 * len(panels), 3.5, title)
    shifts = list(dict.fromkeys(row["corruption"] for row in shift))
    severities = sorted({0, *(row["severity"] for row in shift)})
    for axis, what in zip(axes, panels, strict=True):
        for number, name in enumerate(shifts):
            color = COLORS[number % len(COLORS)]
            lines = (
                {f"{split}/agreement": "-"}
                if what == "agreement"
                else {f"{split}/student/{what}": "-", f"{split}/teacher/{what}": "--"}
            )
            for key, style in lines.items():
                points = [(0, clean[key])] if key in clean else []
                points += [
                    (row["severity"], row["metrics"][key])
                    for row in shift
                    if row["corruption"] == name and key in row["metrics"]
                ]
                if len(points) > 1:
                    axis.plot(*zip(*points, strict=True), style, color=color, lw=1.8 if style == "-" else 1.2, marker="o", ms=3)
        axis.set_title(WHAT.get(what, what), loc="left", fontsize=10, color=INK)
        axis.set_xticks(severities)
        axis.set_xlabel("severity")
    for number, name in enumerate(shifts):
        axes[0].plot([], [], color=COLORS[number % len(COLORS)], label=name)
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=len(shifts), fontsize=8)
    drawing.supxlabel(
        "solid: student" + (" · dashed: teacher" if has_teacher else ""), x=0.01, ha="left", fontsize=7.5, color="#777777"
    )
    return drawing
