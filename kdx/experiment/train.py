"""Experiments: train a student (and first its teacher, if need be), evaluate a finished run."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from kdx.config.check import ConfigError
from kdx.costs.energy import EnergyMeter
from kdx.data.source import Images, SplitName
from kdx.data.splits import fingerprint
from kdx.distiller import Cohort
from kdx.experiment import build, final_metrics, loggers, teacher
from kdx.experiment.assemble import Experiment, assemble, carve_splits, check_features, warn_of_duplicates
from kdx.experiment.cost import priced
from kdx.metrics.selection import directions
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.report.panel import draw_views
from kdx.report.summary import show
from kdx.run.folder import RunFolder, peak_memory_mb
from kdx.teachers.teacher import Teacher
from kdx.training.batchnorm import GlobalBatchNorm
from kdx.training.callbacks.averaging import EMA
from kdx.training.module import DistillationModule
from kdx.training.ranks import rank
from kdx.training.telemetry import NonFiniteLossError

log = logging.getLogger("kdx")


def read(parts: build.Parts) -> Mapping[SplitName, Images]:
    """The data set's own splits. ConfigError if it is not as it should be."""
    try:
        return parts.source.splits()
    except ValueError as error:
        raise ConfigError(str(error)) from None


def pixels(cfg: DictConfig) -> dict[str, int]:
    """At which resolutions the networks are tested."""
    return {"teacher": cfg.resolution.teacher, "student": max(build.student_resolutions(cfg))}


def save_panel(cfg: DictConfig, parts: build.Parts, splits: Mapping[SplitName, Images], folder: RunFolder) -> Path | None:
    """Write `views.png`, the first batch as both networks see it; on the first rank."""
    if rank() > 0:
        return None
    observer = build.observers(cfg, parts, num_classes=max(parts.source.num_classes or 2, 2))["train"]
    observer.teacher = cfg.teacher is not None  # also where its outputs are stored and it is not run in training
    path = folder.path / "views.png"
    draw_views(observer, splits["train"], cfg.data.batch_size, cfg.seed, cfg.data.on_bad_image).save(path)
    return path


def show_views(cfg: DictConfig, parts: build.Parts, folder: RunFolder) -> Path | None:
    """Write the panel of a run that is not trained; gives its path."""
    folder.path.mkdir(parents=True, exist_ok=True)
    return save_panel(cfg, parts, carve_splits(cfg, read(parts)), folder)


def make_trainer(cfg: DictConfig, folder: RunFolder, **arguments: Any) -> pl.Trainer:
    """The Lightning trainer of this config. Its notes on hardware and tips are kept quiet; its warnings are not."""
    for name in ("pytorch_lightning", "lightning_fabric", *(["kdx"] if rank() else [])):
        logging.getLogger(name).setLevel(logging.WARNING)
    plugins = [GlobalBatchNorm()] if cfg.trainer.get("strategy", "auto") != "auto" else []
    trainer: pl.Trainer = build.make(
        cfg.trainer, "trainer", default_root_dir=str(folder.path), plugins=plugins, use_distributed_sampler=False, **arguments
    )
    return trainer


def train(cfg: DictConfig, folder: RunFolder, quiet: bool = False) -> dict[str, float]:
    """Train, select on val, test once; the folder then holds all of it. Returns the final metrics by flat name."""
    began, energy = time.perf_counter(), EnergyMeter()
    parts = build.parts(cfg)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    source = folder.start(resolved) if rank() == 0 else {}
    own = read(parts)
    splits = carve_splits(cfg, own)
    duplicates = warn_of_duplicates(splits)
    check_features(cfg, parts)
    files = teacher.obtain(cfg, own, train_teacher)
    experiment = assemble(cfg, parts, splits, files)
    module = experiment.module
    picture = save_panel(cfg, parts, splits, folder)
    callbacks = [build.make(node, f"callbacks.{name}") for name, node in (cfg.callbacks or {}).items()]
    known = loggers.about(cfg, folder)
    opened = loggers.open_loggers(cfg, folder, known)
    if picture is not None:
        for journal in loggers.journals(opened):
            journal.picture("views", picture)
    trainer = make_trainer(cfg, folder, callbacks=callbacks, logger=opened)
    for name, file in files.items():
        log.info("%s: %s", name, file or "timm's pretrained weights")
    before = experiment.teacher.fingerprint if experiment.teacher is not None else None
    failed = True
    try:
        trainer.fit(module, datamodule=experiment.datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
        selected, last = select(cfg, trainer, experiment, folder)
        metrics = {**parameters(experiment), **final_metrics.measured(cfg, parts, experiment, trainer, folder)}
        metrics["seconds"] = time.perf_counter() - began
        metrics["peak_memory_mb"] = peak_memory_mb()
        joules = energy.joules()
        metrics |= {} if joules is None else {"energy_joules": joules}
        assert experiment.teacher is None or experiment.teacher.fingerprint == before, "the teacher's weights changed"
        if trainer.is_global_zero:
            save_students(cfg, module, folder, parts.source.names)
            if experiment.teacher is not None:
                folder.write("teacher.json", teacher_card(experiment.teacher, files))
            data = {"fingerprint": fingerprint(own), "duplicates_in_test": duplicates, "skipped": experiment.datamodule.skipped}
            costs = priced(cfg, parts, experiment, trainer, metrics["images_per_second"])
            metrics |= costs.metrics
            report = {"metrics": metrics, "last": last or validated(metrics), "selection": selected, "data": data}
            report["higher_is_better"] = directions(parts.metrics)
            cost = {"protocol": costs.protocol, "repetitions": costs.repetitions}
            folder.write("metrics.json", {**report, "cost": cost, "provenance": source})
            loggers.conclude(opened, known, report, best_score(trainer))
        failed = False
    except NonFiniteLossError as error:
        for journal in loggers.journals(opened):
            journal.alert("the loss is not finite", str(error))
        raise
    finally:
        loggers.close(opened, failed)
    if trainer.is_global_zero and not quiet:
        title = f"{cfg.name} · {selected['text']}"
        show(metrics, pixels(cfg), "test" if cfg.test else "val", title, str(folder.path), list(parts.metrics))
    return metrics


def save_students(cfg: DictConfig, module: DistillationModule, folder: RunFolder, names: Sequence[str] | None = None) -> None:
    """Write the selected student, and its peers into a folder of their own; `names` are those of the classes."""
    distiller, side = module.distiller, max(build.student_resolutions(cfg))
    known = {} if names is None else {"label_names": list(names)}
    weights.save(distiller.student.model, {**distiller.student.card, "resolution": side, **known}, folder.student)
    if isinstance(distiller, Cohort):
        folder.peers.mkdir(exist_ok=True)
        for name, peer in distiller.peers.items():
            assert isinstance(peer, Network)
            weights.save(peer.model, {**peer.card, "resolution": side, **known}, folder.peers / f"{name}.safetensors")


def teacher_card(teacher: Teacher, files: Mapping[str, Path | None]) -> dict[str, Any]:
    """Which weights taught, and how each member was calibrated, as plain data."""

    def member(name: str, one: Teacher) -> dict[str, Any]:
        file = files[name]
        return {
            "weights": str(file.resolve()) if file else None,
            "sha256": one.fingerprint,
            "calibration_temperature": one.calibration_temperature,
        }

    return {"members": {name: member(name, one) for name, one in teacher.members.items()}}


def train_teacher(cfg: DictConfig, folder: Path) -> None:
    """Train the teacher that `cfg` describes into `folder`."""
    metrics = train(cfg, RunFolder(folder), quiet=True)
    name = cfg.student.architecture
    log.info("teacher %s trained in %.0f s: val accuracy %.4f", name, metrics["seconds"], metrics["val/student/accuracy"])


def select(
    cfg: DictConfig, trainer: pl.Trainer, experiment: Experiment, folder: RunFolder
) -> tuple[dict[str, Any], dict[str, float] | None]:
    """Put the selected weights into the module; gives which they are, and what val says of the last ones, if those are others.

    The last ones are then kept in `last.safetensors`. With `callbacks=ema`, val saw the average all along, so that the best
    epoch is the average's best; "ema" is the average after the last step, and "last" the student's own weights.
    """
    module, epochs, side = experiment.module, trainer.current_epoch, max(build.student_resolutions(cfg))
    best = next((c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None)), None)
    average = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]  # not declared
    path = getattr(best, "best_model_path", "")
    if cfg.selection == "ema" and average is not None:
        own = keep_last(trainer, experiment, folder, side)
        average.put(module)
        return {"rule": "ema", "epoch": epochs, "text": f"the average of the weights after epoch {epochs}"}, own
    if cfg.selection == "best_val" and path:
        import torch

        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        epoch = checkpoint["epoch"] + 1
        last = keep_last(trainer, experiment, folder, side) if epoch < epochs or average is not None else None
        module.load_state_dict(checkpoint["state_dict"])
        text = f"epoch {epoch} of {epochs}, the best {cfg.monitor}"
        return {"rule": "best_val", "monitor": cfg.monitor, "epoch": epoch, "text": text}, last
    if cfg.selection != "last":
        log.warning("no epoch was compared on val, so selection=%s takes the last weights", cfg.selection)
    return {"rule": "last", "epoch": epochs, "text": f"epoch {epochs}, the last"}, None


def best_score(trainer: pl.Trainer) -> float | None:
    """The best monitored value of all epochs; None where nothing was monitored."""
    scores = [getattr(callback, "best_model_score", None) for callback in trainer.checkpoint_callbacks]
    return next((float(score) for score in scores if score is not None), None)


def keep_last(trainer: pl.Trainer, experiment: Experiment, folder: RunFolder, side: int) -> dict[str, float]:
    """Store the last student's weights beside the ones that will be selected; gives what val says of them."""
    student = experiment.module.distiller.student
    if trainer.is_global_zero:
        weights.save(student.model, {**student.card, "resolution": side}, folder.last)
    trainer.validate(experiment.module, datamodule=experiment.datamodule, verbose=False)
    return {f"val/{name}": value for name, value in experiment.module.val_metrics.items()}


def validated(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those on val."""
    return {name: value for name, value in metrics.items() if name.startswith("val/")}


def parameters(experiment: Experiment) -> dict[str, float]:
    """How large the networks are."""
    distiller = experiment.module.distiller
    counts = {"student/parameters": float(distiller.student.num_parameters)}
    if isinstance(distiller, Cohort):
        for name, peer in distiller.peers.items():
            counts[f"peer_{name}/parameters"] = float(sum(p.numel() for p in peer.parameters()))
    if experiment.teacher is not None:
        counts["teacher/parameters"] = float(experiment.teacher.num_parameters)
    return counts


def evaluate(cfg: DictConfig, folder: RunFolder, split: SplitName) -> dict[str, float]:
    """Metrics of a finished run's selected student (and its teacher) on a split, exactly as the run measured them."""
    parts = build.parts(cfg)
    cards: dict[str, Any] = folder.read("teacher.json")["members"] if cfg.teacher is not None else {}
    files = {name: Path(card["weights"]) if card["weights"] else None for name, card in cards.items()}
    splits = carve_splits(cfg, read(parts))
    shown = {**splits, "test": splits[split]}
    experiment = assemble(cfg, parts, shown, files)
    distiller = experiment.module.distiller
    weights.load(distiller.student.model, folder.student)
    if isinstance(distiller, Cohort):
        for name, peer in distiller.peers.items():
            assert isinstance(peer, Network)
            weights.load(peer.model, folder.peers / f"{name}.safetensors")
    for name, member in (experiment.teacher.members if experiment.teacher is not None else {}).items():
        if member.fingerprint != cards[name]["sha256"]:
            raise ConfigError(f"{files[name]} is not the teacher that this run was distilled from: its weights differ")
        member.calibration_temperature = cards[name]["calibration_temperature"]
    trainer = make_trainer(cfg, folder, callbacks=[], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    known = folder.read("metrics.json")["metrics"]
    metrics = final_metrics.again(cfg, parts, experiment, trainer, split, known) | parameters(experiment)
    if trainer.is_global_zero:
        show(metrics, pixels(cfg), split, f"{cfg.name} · {split}", str(folder.path), list(parts.metrics))
    return metrics
