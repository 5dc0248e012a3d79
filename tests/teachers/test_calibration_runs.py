"""A run teaches, measures, keeps and reloads a teacher whose calibration is not a temperature."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdx.config.schema import RunConfig
from kdx.experiment.teacher import teacher_run
from kdx.teachers.calibration_maps import IDENTITY, of_card

Command = Callable[..., tuple[int, str, str]]
Train = Callable[..., Path]


def read(folder: Path, name: str = "metrics.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def on_test(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("test/")}


@pytest.mark.long
@pytest.mark.parametrize("option", ["vector", "isotonic", "histogram"])
def test_the_teacher_teaches_and_is_measured_as_calibrated(train: Train, command: Command, tmp_path: Path, option: str) -> None:
    kept = ["preflight=off", f"teacher_cache={tmp_path}/kept", "teacher_cache_bits=32"]  # off: whatever val says
    folder = train("first", f"calibration={option}", *kept)
    metrics, card = read(folder)["metrics"], read(folder, "teacher.json")["members"]["teacher"]
    assert card["calibration_temperature"] is None and of_card(card) != IDENTITY
    assert metrics["val/teacher/nll"] == pytest.approx(metrics["preflight/teacher/nll"], rel=1e-6)
    assert metrics["val/teacher_raw/nll"] == pytest.approx(metrics["preflight/teacher_raw/nll"], rel=1e-6)
    assert metrics["val/teacher/ece_mass"] == pytest.approx(metrics["preflight/teacher/ece_mass"], abs=1e-6)
    assert metrics["test/teacher/nll"] != metrics["test/teacher_raw/nll"]
    code, _, err = command("evaluate", f"run={folder}", "split=test")
    assert code == 0, err
    assert on_test(read(folder, "evaluation-test.json")["metrics"]) == pytest.approx(on_test(metrics), rel=1e-6)
    again = read(train("again", f"calibration={option}", *kept))["metrics"]  # from kept answers
    assert on_test(again) == pytest.approx(on_test(metrics), rel=1e-5)
    raw = read(train("raw", "calibration=none", *kept))["metrics"]  # the same answers, uncalibrated
    assert raw["test/teacher/nll"] == pytest.approx(metrics["test/teacher_raw/nll"], rel=1e-5)
    assert raw["test/student/nll"] != metrics["test/student/nll"]


def test_a_teacher_that_val_does_not_calibrate_is_a_caveat(train: Train) -> None:
    folder = train("run", "calibration=isotonic", "calibration.fewest=1000", "preflight=warn")
    [said] = [text for text in read(folder)["caveats"].values() if "is not calibrated" in text]
    assert "too few, expected 1000" in said and "calibration=none" in said
    assert of_card(read(folder, "teacher.json")["members"]["teacher"]) == IDENTITY


def test_an_early_stopped_teacher_is_another_teacher(config: Callable[..., RunConfig]) -> None:
    plain, early = config("teacher=online"), config("teacher=early_stopped")
    runs = [teacher_run(each, each.members["teacher"]) for each in (plain, early)]
    assert [(run.monitor, run.monitor_mode) for run in runs] == [("val/student/accuracy", "max"), ("val/student/nll", "min")]
    other = config("teacher=early_stopped", "teacher.recipe.monitor=val/student/ece")
    assert teacher_run(other, other.members["teacher"]).monitor == "val/student/ece"
