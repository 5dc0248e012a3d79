"""The numbers of an evaluation as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from kdx.report.plots import COLORS, INK, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHAT = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "entropy": "entropy (nats)"}
Row = Mapping[str, Any]  # corruption, severity, metrics; side where it is the resolution that is shifted


def table(clean: Mapping[str, float], shift: Sequence[Row], split: str, title: str) -> Table:
    """A line for the images as they are, and one per shift and severity: student, agreement, teacher."""
    made = Table(title=title, title_justify="left")
    whos = [who for who in ("student", "teacher") if f"{split}/{who}/entropy" in clean]
    columns = [(who, name) for who in whos for name in WHAT if f"{split}/{who}/{name}" in clean]
    made.add_column("shift")
    made.add_column("severity", justify="right")
    for who, name in columns:
        made.add_column(f"{who}\n{WHAT[name].split(' ')[0]}", justify="right")
    if "teacher" in whos:
        made.add_column("\nagreement", justify="right")
    names = [f"{split}/{who}/{name}" for who, name in columns] + ([f"{split}/agreement"] if "teacher" in whos else [])
    extra = [name.split("/")[1] for name in clean if name.startswith(f"{split}/student_at_") and name.endswith("/entropy")]
    made.add_row("none", "", *_numbers(clean, names))
    for who in extra:
        own = [name.replace(f"{split}/student/", f"{split}/{who}/") if "/student/" in name else "" for name in names]
        made.add_row(who.replace("student_at_", "student at ") + " px", "", *_numbers(clean, own))
    before = None
    for row in shift:
        strength = f"{row['side']} px" if "side" in row else str(row["severity"])
        made.add_row(row["corruption"] if row["corruption"] != before else "", strength, *_numbers(row["metrics"], names))
        before = row["corruption"]
    return made


def _numbers(metrics: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]


def picture(clean: Mapping[str, float], shift: Sequence[Row], split: str, title: str) -> Figure:
    """Metrics against severity, a color per shift: the student's line is solid, the teacher's dashed; 0 is the clean image."""
    taught = f"{split}/teacher/entropy" in clean
    panels = [name for name in WHAT if f"{split}/student/{name}" in clean] + (["agreement"] if taught else [])
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
        "solid: student" + (" · dashed: teacher" if taught else ""), x=0.01, ha="left", fontsize=7.5, color="#777777"
    )
    return drawing
