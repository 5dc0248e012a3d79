"""Loggers: W&B when there is a key, else offline; metrics.csv always."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, WandbLogger

log = logging.getLogger("kdx")


def csv(folder: Path) -> CSVLogger:
    """Writes `folder/metrics.csv`."""
    return CSVLogger(str(folder), name="", version="")


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
    **init: Any,
) -> WandbLogger:
    """A W&B run of its own. `mode`: online | offline | disabled; by default online where a key is configured, else offline.

    If the server cannot be reached at the start the run is kept offline, to be sent later by `wandb sync`.
    """
    import wandb

    mode = mode or os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    arguments: dict[str, Any] = dict(
        dir=save_dir, project=project, entity=entity, name=name, group=group, tags=list(tags), job_type=job_type, **init
    )
    settings = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
    try:
        run = wandb.init(mode=mode, settings=settings, reinit="create_new", **arguments)  # type: ignore[arg-type]
    except (wandb.errors.CommError, wandb.errors.UsageError, TimeoutError) as error:
        log.warning("W&B cannot be reached (%s): this run is kept offline; `wandb sync` sends it later", _line(error))
        run = wandb.init(mode="offline", settings=settings, reinit="create_new", **arguments)
    return WandbLogger(experiment=run, save_dir=save_dir, log_model=False)


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0] in hosts
