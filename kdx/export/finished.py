"""Read the folder of a finished run as plain data, without importing torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kdx.config.cards import read_card
from kdx.config.run_as_teacher import CARD, WEIGHTS
from kdx.networks.preprocessing import preprocessing

FITTED = "calibration_temperature/student"  # the name of the metric


@dataclass(frozen=True)
class FinishedRun:
    """The content of a run folder: `card` is student.json, `result` metrics.json, `teacher` teacher.json if it exists.

    The card has the preprocessing and the calibration temperature also for runs whose student.json has none.
    """

    path: Path
    card: dict[str, Any]
    result: dict[str, Any]
    config: dict[str, Any]
    teacher: dict[str, Any] | None

    @property
    def weights(self) -> Path:
        """The file with the weights of the selected student."""
        return self.path / WEIGHTS

    @property
    def metrics(self) -> dict[str, float]:
        """Final metrics by flat name."""
        return dict(self.result["metrics"])

    @property
    def calibration_temperature(self) -> float | None:
        """The calibration temperature of the student, fitted on val; None if none was fitted."""
        return self.metrics.get(FITTED)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [C,R,R] of the student's input."""
        return self.card["model_args"]["in_chans"], self.card["resolution"], self.card["resolution"]


def read(run: str) -> FinishedRun:
    """Return the content of the run folder `run`.

    Raises:
        ValueError: If the folder or a file is missing or invalid.
    """
    path = Path(run).expanduser()
    if not path.is_dir():
        raise ValueError(f"run={run} does not exist; give the folder of a finished run")
    if not (path / "config.yaml").is_file():
        raise ValueError(f"run={run} is not the folder of a run: it has no config.yaml")
    if not (path / "metrics.json").is_file():
        raise ValueError(f"run={run} is not finished (no metrics.json); wait until it ends, or give another run folder")
    missing = [name for name in (CARD, WEIGHTS) if not (path / name).is_file()]
    if missing:
        raise ValueError(f"run={run} has no {missing[0]}; give a run folder with a saved student")
    card, result = read_card(path / CARD), _json(path / "metrics.json")
    teacher = _json(path / "teacher.json") if (path / "teacher.json").is_file() else None
    config = _config(path)
    return FinishedRun(path, _completed(card, config, result), result, config, teacher)


def _completed(card: dict[str, Any], config: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return a card of any version of kdx with what newer ones have, from the run's config and metrics."""
    crop = (config.get("data") or {}).get("eval_crop") or {}
    resizing = config.get("interpolation") or {}
    interpolation = resizing.get("eval") or resizing.get("student", "bilinear")
    words = preprocessing(crop, interpolation, card["model_args"]["in_chans"], card["resolution"])
    return {
        **card,
        "pretrained_cfg": {**words, **card["pretrained_cfg"]},
        "calibration_temperature": result["metrics"].get(FITTED),
    }


def _config(path: Path) -> dict[str, Any]:
    if (path / "run.json").is_file():
        return dict(_json(path / "run.json")["config"])
    try:  # runs of older versions have no run.json
        return dict(yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path / 'config.yaml'} cannot be read ({error}): give the folder of a finished run") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): give the folder of a finished run") from None
