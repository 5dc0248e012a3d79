"""The model card says so where something is not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdx.export.card import model_card
from kdx.export.request import requested

Values = Callable[..., dict[str, Any]]


@pytest.fixture
def card(values: Values, digits_run: Path) -> Callable[..., str]:
    """The text for the run with other metrics, with or without a teacher."""

    def write(metrics: dict[str, float], taught: bool, teacher: dict[str, Any] | None = None, **changed: Any) -> str:
        result = json.loads((digits_run / "metrics.json").read_text())
        (digits_run / "metrics.json").write_text(json.dumps({**result, "metrics": metrics}))
        if not taught:
            (digits_run / "teacher.json").unlink()
        if teacher is not None:
            (digits_run / "teacher.json").write_text(json.dumps(teacher))
        reports = {"timm": {"max_difference": 1e-6}}
        return model_card(requested(values(digits_run, format="timm", **changed)), reports, None)

    return write


def test_a_run_without_a_test_says_whose_numbers_these_are(card: Callable[..., str]) -> None:
    text = card({"val/student/accuracy": 0.8}, taught=False)
    assert "| val, n = 1 | accuracy |" in text and "| student | 0.8000 |" in text
    assert "not tested" in text and "optimistic" in text
    assert "trained without a teacher" in text and "- teacher: none" in text
    assert "No calibration temperature was fitted" in text
    assert "onnx" not in text


def test_a_temperature_that_stayed_outside_is_said_to(card: Callable[..., str]) -> None:
    text = card({"test/student/accuracy": 0.8, "calibration_temperature/student": 1.25}, taught=True)
    assert "T = 1.2500" in text and "**not** included in these files" in text
    assert "not tested" not in text


def test_every_member_of_an_ensemble_is_named(card: Callable[..., str]) -> None:
    members = {name: {"sha256": name * 64, "calibration_temperature": 1.0} for name in ("a", "b")}
    text = card({"test/student/accuracy": 0.8}, taught=True, teacher={"members": members})
    assert f"a, sha256 `{'a' * 16}`" in text and f"b, sha256 `{'b' * 16}`" in text


def test_a_teacher_card_from_before_there_were_members(card: Callable[..., str]) -> None:
    text = card({"test/student/accuracy": 0.8}, taught=True, teacher={"sha256": "c" * 64, "calibration_temperature": 2.0})
    assert "calibration temperature 2.0000" in text
