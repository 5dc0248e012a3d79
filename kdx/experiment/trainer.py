"""The Lightning trainer of a run, and the selection of the weights that are tested and exported."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException

from kdx.config.schema import RunConfig
from kdx.experiment import build
from kdx.experiment.assemble import Experiment
from kdx.experiment.build import Parts
from kdx.experiment.students import student_card
from kdx.networks import weights
from kdx.run.folder import RunFolder
from kdx.run.quiet import quiet
from kdx.training.batchnorm import GlobalBatchNorm
from kdx.training.callbacks.averaging import EMA
from kdx.training.callbacks.checkpoints import Last
from kdx.training.callbacks.compiling import Compiling
from kdx.training.checkpoint_files import WholeFiles
from kdx.training.interruption import Interruption
from kdx.training.memory import keep_freed_memory
from kdx.training.ranks import rank

log = logging.getLogger("kdx")

OBSERVER = "lightning_fabric.strategies.launchers.subprocess_script"  # of the ranks that Lightning has started


def make_trainer(config: RunConfig, folder: RunFolder, **arguments: Any) -> pl.Trainer:
    """Return the Lightning trainer of this config. Of Lightning's messages, only warnings and errors are logged."""
    for name in ("pytorch_lightning", "lightning_fabric", *(["kdx"] if rank() else [])):
        logging.getLogger(name).setLevel(logging.WARNING)
    observer = logging.getLogger(OBSERVER)
    observer.setLevel(logging.INFO)
    if not any(isinstance(one, _OfRank) for one in observer.filters):
        observer.addFilter(_OfRank())
    trainer: pl.Trainer = build.make(
        config.trainer,
        "trainer",
        default_root_dir=str(folder.path),
        # Lightning applies the first if there are several processes, however the strategy is called.
        plugins=[GlobalBatchNorm(), WholeFiles(), *_slurm()],
        use_distributed_sampler=False,
        **arguments,
    )
    return trainer


def compiling(config: RunConfig) -> list[Compiling]:
    """Return the callback of compile=teacher|both; none without."""
    if config.compile is None:
        return []
    return [Compiling(config.compile, config.data.batch_size, config.resolution.teacher, config.student_resolutions)]


class _OfRank(logging.Filter):
    """Words the message with which Lightning kills all ranks after one of them has ended."""

    def filter(self, record: logging.LogRecord) -> bool:
        found = re.search(r"\[rank: (\d+)\].* PID (\d+) terminated with code (-?\d+)", record.getMessage())
        if found is not None:
            number, process, code = found.groups()
            ended = f"was ended by {signal.Signals(-int(code)).name}" if int(code) < 0 else f"ended with exit status {code}"
            record.msg, record.args = f"Rank {number} (process {process}) {ended}, so all ranks end: see what it printed", ()
        return True


def _slurm() -> list[SLURMEnvironment]:
    """Return Lightning's plug-in for a job of Slurm, if this is one: without its own way to queue the job again."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def fit(trainer: pl.Trainer, experiment: Experiment, checkpoint: str | None) -> None:
    """Train, on from a checkpoint if there is one.

    Raises:
        KeyboardInterrupt: After SIGINT; the checkpoint is written.
        SIGTERMException: After SIGTERM, likewise.
    """
    lasts = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Last)]
    for last in lasts:
        last.interruption = experiment.datamodule.sharing.interruption or last.interruption
    interruptions = [last.interruption for last in lasts]
    keep_freed_memory()
    try:
        trainer.fit(experiment.module, datamodule=experiment.datamodule, ckpt_path=checkpoint, weights_only=True)
    except SIGTERMException:
        _act(interruptions)
        raise  # another rank had received the signal
    _act(interruptions)  # it came after the last step


def _act(interruptions: Sequence[Interruption]) -> None:
    for interruption in interruptions:
        interruption.act()


def check_trainer(config: RunConfig) -> None:
    """Raise ConfigError if Lightning cannot build the trainer with its arguments."""
    with quiet("pytorch_lightning", "lightning_fabric", level=logging.ERROR):  # otherwise Lightning lists the devices
        build.make(config.trainer, "trainer", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def select(
    parts: Parts, trainer: pl.Trainer, experiment: Experiment, folder: RunFolder
) -> tuple[dict[str, Any], dict[str, float] | None]:
    """Load the selected weights into the module.

    With `callbacks=ema`, validation uses the averaged weights, so "best_val" selects the average of the best epoch; "ema"
    selects the average after the last step, and "last" the weights without averaging.

    Returns:
        The selection rule with the epoch, as plain data; and the val metrics of the last weights, None if those are selected.
        If they are not, they are stored in `last.safetensors`.
    """
    config, module, epochs = parts.config, experiment.module, trainer.current_epoch
    best = next((c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None)), None)
    average = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]  # not declared
    path = getattr(best, "best_model_path", "")
    if config.selection == "ema" and average is not None:
        last = keep_last(parts, trainer, experiment, folder)
        average.put(module)
        return {"rule": "ema", "epoch": epochs, "text": f"the average of the weights after epoch {epochs}"}, last
    if config.selection == "best_val" and path:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        epoch = checkpoint["epoch"] + 1
        differs = epoch < epochs or average is not None
        kept = keep_last(parts, trainer, experiment, folder) if differs else None
        module.load_state_dict(checkpoint["state_dict"])
        text = f"epoch {epoch} of {epochs}, the best {config.monitor}"
        return {"rule": "best_val", "monitor": config.monitor, "epoch": epoch, "text": text}, kept
    if config.selection != "last":
        log.warning("No validation checkpoint (callbacks=none?); testing the last weights")
    return {"rule": "last", "epoch": epochs, "text": f"epoch {epochs}, the last"}, None


def best_score(trainer: pl.Trainer) -> float | None:
    """Return the best monitored value of all epochs; None if no metric was monitored."""
    scores = [getattr(callback, "best_model_score", None) for callback in trainer.checkpoint_callbacks]
    return next((float(score) for score in scores if score is not None), None)


def keep_last(parts: Parts, trainer: pl.Trainer, experiment: Experiment, folder: RunFolder) -> dict[str, float]:
    """Store the last weights of the student in `last.safetensors`. Return their metrics on val."""
    student = experiment.module.distiller.student
    if trainer.is_global_zero:
        weights.save(student.model, student_card(student, parts.config, parts.source.names), folder.last)
    trainer.validate(experiment.module, datamodule=experiment.datamodule, verbose=False)
    return {f"val/{name}": value for name, value in experiment.module.val_metrics.items()}
