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
        "teacher, as used in training",
        "student",
        "student, temperature-scaled",
        "student",
    ]
    said = {text.get_text() for axis in upper for text in axis.texts}
    assert said == {f"{side} px · accuracy {11 / 20:.3f} · ECE {(0.4 + 3 + 0.6) / 20:.3f}" for side in (8, 4, 2)}
    assert "test, 20 examples" in drawing.get_suptitle()


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_no_title_reaches_into_another(count: int) -> None:
    networks = [
        "teacher",
        "teacher_raw",
        "student_scaled",
        "teacher_scaled",
        "student",
        "teacher_with_a_very_long_name_of_a_member",
        "x" * 60,
    ]
    drawing = reliability.figure({"num_bins": 4, "diagrams": [diagram(name, resolution=1024) for name in networks[:count]]})
    drawing.draw_without_rendering()
    boxes = [
        text.get_window_extent()
        for axis in drawing.axes
        for text in (axis._left_title, *axis.texts)  # matplotlib has no public name for the artist
        if text.get_text()
    ]
    assert len(boxes) == 2 * count
    for i, box in enumerate(boxes):
        assert box.x1 < drawing.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[i + 2 - i % 2 :])  # of the other diagrams


def test_the_kinds_of_disagreement() -> None:
    def row(label: int, teacher: int, student: int) -> dict[str, Any]:
        return {"label": label, "teacher": teacher, "student": student}

    assert disagreement.kind(row(1, 1, 2)) == "student wrong, teacher right"
    assert disagreement.kind(row(1, 2, 1)) == "student right, teacher wrong"
    assert disagreement.kind(row(1, 2, 3)) == disagreement.kind(row(1, 2, 2)) == "both wrong"
    assert disagreement.kind(row(1, 1, 1)) == "both right"
    assert (
        disagreement.kind(row(-1, 1, 1)) == "the same prediction"
        and disagreement.kind(row(-1, 1, 2)) == "different predictions"
    )


@pytest.mark.parametrize("count", [1, 8, 11])
def test_each_image_is_where_corner_says(count: int) -> None:
    shades = [20 * (i + 1) for i in range(count)]
    images = [np.full((1, 4, 4), shade, np.uint8) for shade in shades]
    row = {"index": 0, "label": 0, "teacher": 0, "student": 1, "teacher_confidence": 1.0, "student_confidence": 0.5, "kl": 1.0}
    sheet = disagreement.picture(images, [row] * count)
    assert sheet.size == disagreement.size(count)
    for i, shade in enumerate(shades):
        x, y = disagreement.corner(i)
        tile = np.asarray(sheet.crop((x, y, x + disagreement.TILE, y + disagreement.TILE)))
        assert (tile == shade).all()


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
