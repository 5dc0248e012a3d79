"""Evaluation of a finished run, with the same measurements as at the end of the run."""

from __future__ import annotations

from typing import Any

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.data.source import SplitName
from kdx.distiller import Cohort
from kdx.experiment import build
from kdx.experiment.assemble import Experiment, assemble
from kdx.experiment.data import carve_splits, on_disk, read_splits
from kdx.experiment.final_metrics import measured_again
from kdx.experiment.length import settled
from kdx.experiment.students import calibration_of_card, count_parameters, weights_of_card
from kdx.experiment.trainer import make_trainer
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.report.summary import show
from kdx.run.folder import RunFolder


def evaluate(config: RunConfig, folder: RunFolder, split: SplitName, quiet: bool = False) -> dict[str, float]:
    """Return the metrics by flat name of a finished run's selected student, and its teacher, on a split.

    Raises:
        ConfigError: if the data or the teacher are not those of the run.
    """
    parts = build.parts(config)
    splits = carve_splits(config.data, on_disk(config.data, read_splits(config.data, parts.source)))
    parts.config = config = settled(config, splits)
    experiment = reload(parts, folder, {**splits, "test": splits[split]})
    trainer = make_trainer(config, folder, callbacks=[], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    report = folder.read("metrics.json")
    metrics = measured_again(parts, experiment, trainer, split, report["metrics"]) | count_parameters(experiment)
    if trainer.is_global_zero and not quiet:
        pixels = {"teacher": config.resolution.teacher, "student": config.student_resolution}
        show(
            metrics,
            pixels,
            split,
            f"{config.name} · {split}",
            str(folder.path),
            list(parts.metrics),
            caveats=list(report.get("caveats", {}).values()),
        )
    return metrics


def reload(parts: build.Parts, folder: RunFolder, splits: Any) -> Experiment:
    """Return the experiment of a finished run, with its selected weights, its teacher and the teacher's calibration."""
    cards: dict[str, Any] = folder.read("teacher.json")["members"] if parts.config.teacher is not None else {}
    files = {name: weights_of_card(card, parts.num_classes) for name, card in cards.items()}
    experiment = assemble(parts, splits, files, folder.path)
    distiller = experiment.module.distiller
    weights.load(distiller.student.model, folder.student)
    if isinstance(distiller, Cohort):
        for name, peer in distiller.peers.items():
            assert isinstance(peer, Network)
            weights.load(peer.model, folder.peers / f"{name}.safetensors")
    for name, member in (experiment.teacher.members if experiment.teacher is not None else {}).items():
        if member.fingerprint != cards[name]["sha256"]:
            raise ConfigError(
                f"The teacher's weights in {files[name].file} have changed since the run: restore the file, or train again"
            )
        member.calibration = calibration_of_card(cards[name])
    return experiment
