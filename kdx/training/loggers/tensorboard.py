"""TensorBoard: curves, the config, pictures, and tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from kdx.training.loggers.journal import FinalReport, Journal, Row, RunInfo


class TensorBoard(Journal, TensorBoardLogger):
    """Event files in the run's folder, `tensorboard/`."""

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="tensorboard", default_hp_metric=False)

    def begin(self, about: RunInfo) -> None:
        self.experiment.add_text("config", f"```yaml\n{yaml.safe_dump(dict(about.config), sort_keys=False)}```")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(dict(metrics), step)

    def picture(self, name: str, path: Path) -> None:
        with Image.open(path) as image:
            self.experiment.add_image(name, np.asarray(image.convert("RGB")), dataformats="HWC")

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in (columns, ["---"] * len(columns), *rows)]
        self.experiment.add_text(name, "\n".join(lines))

    def conclude(self, about: RunInfo, conclusion: FinalReport) -> None:
        super().log_metrics({name: value for name, value in conclusion.metrics.items() if "/" in name})
        self.experiment.add_text("selection", str(conclusion.selection["text"]))
        for kind, text in conclusion.caveats.items():
            self.experiment.add_text(f"caveats/{kind}", text)

    def alert(self, title: str, text: str) -> None:
        self.experiment.add_text(title, text)

    def close(self, failed: bool) -> None:
        self.finalize("failed" if failed else "success")


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
