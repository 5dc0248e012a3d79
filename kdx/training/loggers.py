"""Loggers: metrics.csv always; W&B online where there is a key, else offline."""

from __future__ import annotations

import csv
import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

log = logging.getLogger("kdx")


class _Writer(ExperimentWriter):
    """Goes on with a file that is there already, from the step at which the run was resumed."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        self.before: list[dict[str, Any]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.before = list(csv.DictReader(file))

    def log_metrics(self, metrics_dict: Mapping[str, float], step: int | None = None) -> None:
        if self.before:
            kept = [row for row in self.before if int(row["step"]) < (step or 0)]
            Path(self.metrics_file_path).unlink()
            self.metrics, self.before = [{k: v for k, v in row.items() if v != ""} for row in kept], []
        super().log_metrics(dict(metrics_dict), step)


class MetricsFile(CSVLogger):
    """Writes `folder/metrics.csv`, a row per logged step; a resumed run goes on with the file it finds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), name="", version="")
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def experiment(self) -> Any:
        """The open file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """config.yaml has them."""


def wandb(
    save_dir: str,
    project: str = "kdx",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "train",
    mode: str | None = None,
    init_timeout: float = 20.0,
) -> WandbLogger:
    """A W&B run of its own. `mode`: online | offline | disabled; by default online where a key is configured, else offline.

    If the server cannot be reached at the start the run is kept offline, to be sent later by `wandb sync`.
    """
    import wandb

    mode = mode or os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    arguments: dict[str, Any] = dict(
        dir=save_dir, project=project, entity=entity, name=name, group=group, tags=list(tags), job_type=job_type
    )
    settings = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
    try:
        run = wandb.init(mode=mode, settings=settings, reinit="create_new", **arguments)  # type: ignore[arg-type]
    except (wandb.errors.CommError, wandb.errors.UsageError, TimeoutError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log.warning("W&B cannot be reached (%s): this run is kept offline; `wandb sync` sends it later", reason)
        run = wandb.init(mode="offline", settings=settings, reinit="create_new", **arguments)
    return WandbLogger(experiment=run, save_dir=save_dir, log_model=False)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0] in hosts
