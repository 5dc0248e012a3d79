"""What a finished run says of its student, as plain data; no torch is imported to read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kdx.config.run_as_teacher import CARD, WEIGHTS

FITTED = "calibration_temperature/student"  # the name of the metric


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder, read: `card` is student.json, `result` metrics.json, `teacher` teacher.json where there is one."""

    path: Path
    card: dict[str, Any]
    result: dict[str, Any]
    config: dict[str, Any]
    teacher: dict[str, Any] | None

    @property
    def weights(self) -> Path:
        """The selected student's weights."""
        return self.path / WEIGHTS

    @property
    def metrics(self) -> dict[str, float]:
        """Final metrics by flat name."""
        return dict(self.result["metrics"])

    @property
    def calibration_temperature(self) -> float | None:
        """The student's, fitted on val; None where none was fitted."""
        return self.metrics.get(FITTED)

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C,R,R] of the images that the student sees."""
        return self.card["model_args"]["in_chans"], self.card["resolution"], self.card["resolution"]


def read(run: str) -> FinishedRun:
    """The finished run in folder `run`. ValueError says what is missing there and what to do."""
    path = Path(run).expanduser()
    if not path.is_dir():
        raise ValueError(f"run={run}: there is no such folder; give the folder of a finished run")
    if not (path / "metrics.json").is_file():
        raise ValueError(f"run={run}: it is not finished, there is no metrics.json; let it end, or give another run's folder")
    absent = [name for name in (CARD, WEIGHTS) if not (path / name).is_file()]
    if absent:
        raise ValueError(f"run={run}: {absent[0]} is missing; give a run that kept its student")
    card, result = _json(path / CARD), _json(path / "metrics.json")
    if not {"architecture", "model_args", "pretrained_cfg", "resolution"} <= card.keys():
        raise ValueError(f"run={run}: {CARD} does not say how to build the student; give a run of kdx-train")
    teacher = _json(path / "teacher.json") if (path / "teacher.json").is_file() else None
    return FinishedRun(path, card, result, _config(path), teacher)


def _config(path: Path) -> dict[str, Any]:
    if (path / "run.json").is_file():
        return dict(_json(path / "run.json")["config"])
    try:  # a run from before there was a run.json
        return dict(yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path / 'config.yaml'} cannot be read ({error}): give the folder of a finished run") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): give the folder of a finished run") from None
