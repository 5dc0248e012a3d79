"""The table at the end of a run."""

from __future__ import annotations

import pytest
from rich.console import Console

from kdx.report.summary import show, summary

CALIBRATED = {"preflight/teacher_raw/entropy": 0.4, "preflight/teacher/entropy": 0.2, "test/student/entropy": 0.3}
PIXELS = {"teacher": 8, "student": 4}


@pytest.mark.parametrize(("metrics", "rows"), [(CALIBRATED, 3), ({**CALIBRATED, "preflight/teacher_raw/entropy": 0.2}, 2)])
def test_an_uncalibrated_teacher_has_one_row(metrics: dict[str, float], rows: int) -> None:
    table = summary(metrics, PIXELS, "test", "title")
    console = Console(width=150)
    with console.capture() as captured:
        console.print(table)
    assert table.row_count == rows and ("teacher, uncalibrated" in captured.get()) == (rows == 3)


def test_fitted_temperatures_are_named_by_their_use(capsys: pytest.CaptureFixture[str]) -> None:
    fitted = {f"calibration_temperature{name}": 1.5 for name in ("", "_a", "/student", "/teacher_scaled")}
    show({**CALIBRATED, **fitted}, PIXELS, "test", "title", "footer")
    named = ("T that calibrates the teacher", "T that calibrates the teacher a", "T that would calibrate the student")
    assert " · ".join(f"{name}: 1.500" for name in (*named, "T that would calibrate the teacher")) in capsys.readouterr().out
