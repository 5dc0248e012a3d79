"""The folder of a run: its paths, its JSON files, and the files that are written at the start."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from kdx.run.files import replacing
from kdx.run.masking import masked
from kdx.run.provenance import difference, environment, provenance

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # checkpoints to resume from
RERUN = "# Again: kdx-train --config-dir=FOLDER_OF_THIS_FILE --config-name=rerun\n"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, its sweep and its overrides. `outputs/<name>/<run id>/`."""

    path: Path
    group: str | None = None  # the sweep it belongs to
    overrides: tuple[str, ...] = field(default_factory=tuple)

    @property
    def checkpoints(self) -> Path:
        """The folder of `best.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def student(self) -> Path:
        """The file of the selected student's weights; `student.json` beside it holds architecture and preprocessing."""
        return self.path / "student.safetensors"

    @property
    def last(self) -> Path:
        """The file of the weights after the last step; it exists if other weights were selected."""
        return self.path / "last.safetensors"

    @property
    def peers(self) -> Path:
        """The folder of the other students of a cohort, in files like the student's."""
        return self.path / "peers"

    @property
    def baselines(self) -> Path:
        """The folder of the run's equal-budget baselines, with one run folder for each."""
        return self.path / "baselines"

    def write(self, name: str, content: Any) -> None:
        """Write JSON atomically, with secrets masked."""
        with replacing(self.path / name) as draft:
            draft.write_text(json.dumps(masked(content), indent=2) + "\n", encoding="utf-8")

    def read(self, name: str) -> Any:
        """Read JSON. ValueError if the file is missing or invalid."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"Cannot read {self.path / name} ({error}); expected {self.path} to be a finished run") from None

    def columns(self) -> dict[str, Any]:
        """Return the columns of metrics.csv as arrays, NaN where nothing was logged."""
        import numpy as np

        with (self.path / "metrics.csv").open(newline="", encoding="utf-8") as stream:
            names, *rows = list(csv.reader(stream))
        return {name: np.array([float(row[i]) if row[i] else np.nan for row in rows]) for i, name in enumerate(names)}

    def start(self, config: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
        """Write config, provenance, environment and uncommitted changes before training, with secrets masked.

        `about` is added to run.json, which is written last. Return the provenance.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.yaml").write_text(
            RERUN + yaml.safe_dump(masked(config), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        source = provenance(self.overrides)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        (self.path / "environment.txt").write_text(environment(), encoding="utf-8")
        patch = difference()
        if patch:
            (self.path / "code.diff").write_text(patch + "\n", encoding="utf-8")
        self.write("run.json", {**about, "config": config, "provenance": source, "started": started, "group": self.group})
        return source


def forget_peak_memory() -> None:
    """Start the GPU's peak anew, if there is a GPU; the peak of a process cannot be reset."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """Return the peak memory so far in MiB: of the GPU if there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)
