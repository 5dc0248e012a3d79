"""What a run leaves behind, in one folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from kdx.run.provenance import difference, environment, provenance

RERUN = "# Again: kdx-train --config-dir=FOLDER_OF_THIS_FILE --config-name=rerun\n"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and how it came about. `outputs/<name>/<run id>/`."""

    path: Path
    group: str | None = None  # the sweep it belongs to
    overrides: tuple[str, ...] = field(default_factory=tuple)

    @property
    def checkpoints(self) -> Path:
        """Where `best.ckpt` and `last.ckpt` are."""
        return self.path / "checkpoints"

    @property
    def student(self) -> Path:
        """The selected student's weights; `student.json` beside it says how to build and feed it."""
        return self.path / "student.safetensors"

    @property
    def last(self) -> Path:
        """The weights after the last step, where those are not the selected ones."""
        return self.path / "last.safetensors"

    @property
    def peers(self) -> Path:
        """Where the other students of a cohort are, in files like the student's."""
        return self.path / "peers"

    @property
    def baselines(self) -> Path:
        """Where the run's equal-budget baselines are, a run folder each."""
        return self.path / "baselines"

    def write(self, name: str, content: Any) -> None:
        """Write JSON, whole or not at all."""
        draft = self.path / f".{name}.part"
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, self.path / name)

    def read(self, name: str) -> Any:
        """Read JSON; ValueError says what to do where the file is missing or broken."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.path / name} cannot be read ({error}): is {self.path} a finished run?") from None

    def start(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Write what is known before the first step: the config, and where the numbers will come from, which it returns."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.yaml").write_text(
            RERUN + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        source = provenance(self.overrides)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.write("run.json", {"config": config, "provenance": source, "started": started, "group": self.group})
        (self.path / "environment.txt").write_text(environment(), encoding="utf-8")
        patch = difference()
        if patch:
            (self.path / "code.diff").write_text(patch + "\n", encoding="utf-8")
        return source


def peak_memory_mb() -> float:
    """Peak memory so far: of the GPU where there is one, else of this process. MiB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)
