"""The figures of calibration and disagreement, and the table of classes, show what they are given."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdx.report import disagreement, per_class, reliability


def diagram(network: str, split: str = "test", resolution: int = 4) -> dict[str, Any]:
    count = [0, 4, 10, 6]
    return {
        "split": split,
        "network": network,
        "resolution": resolution,
        "count": count,
        "confidence": [0, 1.6, 6.0, 5.4],
        "correct": [0, 2, 3, 6],
    }


def test_the_teacher_comes_first_and_each_says_its_accuracy_and_error() -> None:
    content = {
        "num_bins": 4,
        "diagrams": [diagram("student_at_2", resolution=2), diagram("student"), diagram("teacher", "val")],
    }
    content["diagrams"] += [diagram("teacher", resolution=8), diagram("student_scaled")]
    drawing = reliability.figure(content)
    upper = drawing.axes[::2]
    assert [axis.get_title(loc="left").strip() for axis in upper] == [
        "teacher, as used in training, 8 px",
        "student, 4 px",
        "student, temperature-scaled, 4 px",
        "student, 2 px",
    ]
    said = {text.get_text() for axis in upper for text in axis.texts}
    assert said == {f"accuracy {11 / 20:.3f} · ECE {(0.4 + 3 + 0.6) / 20:.3f}"}
    assert "test, 20 examples" in drawing.get_suptitle()


def test_the_gap_is_orange_where_too_certain_and_green_where_too_uncertain() -> None:
    upper, lower = reliability.figure({"num_bins": 4, "diagrams": [diagram("student", "val")]}).axes
    bars, orange, green = (patch.get_data() for patch in upper.patches)
    assert bars.values.tolist() == pytest.approx([0, 0.4, 0.3, 0.9])
    assert (orange.values - orange.baseline).tolist() == pytest.approx([0, 0, 0.3, 0])
    assert (green.values - green.baseline).tolist() == pytest.approx([0, 0.1, 0, 0.1])
    assert lower.patches[0].get_data().values.tolist() == pytest.approx([0, 0.2, 0.5, 0.3])


def test_a_split_that_is_not_there_is_said() -> None:
    with pytest.raises(ValueError, match="No reliability diagram for split test; available: val"):
        reliability.figure({"num_bins": 4, "diagrams": [diagram("student", "val")]}, "test")


def test_classes_without_an_example_have_no_accuracy(tmp_path: Path) -> None:
    tables = {"val": {"student": [[2, 0], [1.5, 0], [1, 0]]}, "test": {"student": [[0, 4], [0, 3], [0, 4]]}}
    per_class.write(tmp_path / "x.csv", tables, ["cat"])
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ["val", "0", "cat", "2", "0.5", "0.75"],
        ["val", "1", "1", "0", "", ""],
        ["test", "0", "cat", "0", "", ""],
        ["test", "1", "1", "4", "1.0", "0.75"],
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_on_the_sheet(channels: int) -> None:
    row = {"kl": 1.0, "index": 3, "label": -1, "teacher": 0, "teacher_confidence": 0.9, "student": 1, "student_confidence": 0.5}
    images = [np.full((channels, 5, 9), 10 * i, np.uint8) for i in range(1, 11)]
    sheet = disagreement.picture(images, [row] * 10, ["a very long name of a class indeed", "b"])
    colors = {color for _, color in sheet.getcolors(1 << 24) or []}
    assert {(10 * i,) * 3 for i in range(1, 11)} <= colors
    with pytest.raises(ValueError):
        disagreement.picture(images, [row])
