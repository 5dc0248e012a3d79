"""Experiments: train a student (and first its teacher, if need be), evaluate a finished run."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from kdx import build, teacher_training
from kdx.assembly import Experiment, assemble, carve_splits, warn_of_duplicates
from kdx.config import ConfigError
from kdx.data.source import Images, SplitName
from kdx.folder import RunFolder, peak_memory_mb, provenance
from kdx.networks import weights
from kdx.report.panel import draw_views
from kdx.report.summary import show
from kdx.training.batchnorm import GlobalBatchNorm
from kdx.training.loggers import MetricsFile
from kdx.training.module import DistillationModule
from kdx.training.ranks import rank

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


def make_loggers(cfg: DictConfig, folder: RunFolder) -> list[Any]:
    """metrics.csv, and what the config adds; W&B learns which sweep the run belongs to."""
    if rank() > 0:
        return [MetricsFile(folder.path)]
    extra = []
    for name, node in (cfg.logger or {}).items():
        sweep = {"group": node.group or folder.group} if "group" in node else {}
        logger = build.make(node, f"logger.{name}")(save_dir=str(folder.path), **sweep)
        logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
        extra.append(logger)
    return [MetricsFile(folder.path), *extra]


def train(cfg: DictConfig, folder: RunFolder, quiet: bool = False) -> dict[str, float]:
    """Train, select on val, test once; the folder then holds all of it. Returns the final metrics by flat name."""
    began = time.perf_counter()
    parts = build.parts(cfg)
    if rank() == 0:
        folder.write_config(cfg)
    own = read(parts)
    splits = carve_splits(cfg, own)
    duplicates = warn_of_duplicates(splits)
    teacher_file = teacher_training.obtain(cfg, own, train_teacher)
    experiment = assemble(cfg, parts, splits, teacher_file)
    module, student = experiment.module, experiment.module.distiller.student
    picture = save_panel(cfg, parts, splits, folder)
    callbacks = [build.make(node, f"callbacks.{name}") for name, node in (cfg.callbacks or {}).items()]
    loggers = make_loggers(cfg, folder)
    for logger in loggers:
        if picture is not None and hasattr(logger, "log_image"):
            logger.log_image("views", [str(picture)])
    trainer = make_trainer(cfg, folder, callbacks=callbacks, logger=loggers)
    if experiment.teacher is not None:
        log.info("teacher: %s", teacher_file or "timm's pretrained weights")
    before = experiment.teacher.fingerprint if experiment.teacher is not None else None
    try:
        trainer.fit(module, datamodule=experiment.datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
        selected = select(cfg, trainer, module)
        metrics = {**parameters(experiment), **measured(experiment, trainer, cfg.test)}
        metrics["seconds"] = time.perf_counter() - began
        metrics["peak_memory_mb"] = peak_memory_mb()
        assert experiment.teacher is None or experiment.teacher.fingerprint == before, "the teacher's weights changed"
        if trainer.is_global_zero:
            weights.save(student.model, {**student.card, "resolution": max(build.student_resolutions(cfg))}, folder.student)
            if experiment.teacher is not None:
                temperature = experiment.teacher.calibration_temperature
                file = str(teacher_file.resolve()) if teacher_file else None
                card = {"weights": file, "sha256": before, "calibration_temperature": temperature}
                folder.write("teacher.json", card)
            for logger in loggers[1:]:
                logger.log_metrics({k: v for k, v in metrics.items() if "/" in k}, step=trainer.global_step)
            data = {"duplicates_in_test": duplicates, "skipped": experiment.datamodule.skipped}
            final = {"metrics": metrics, "selection": selected, "data": data, "provenance": provenance(folder)}
            folder.write("metrics.json", final)
    finally:
        for logger in loggers[1:]:
            if hasattr(logger.experiment, "finish"):
                logger.experiment.finish()
    if trainer.is_global_zero and not quiet:
        show(metrics, pixels(cfg), "test" if cfg.test else "val", f"{cfg.name} · {selected['text']}", str(folder.path))
    return metrics


def train_teacher(cfg: DictConfig, folder: Path) -> None:
    """Train the teacher that `cfg` describes into `folder`."""
    metrics = train(cfg, RunFolder(folder), quiet=True)
    name = cfg.student.architecture
    log.info("teacher %s trained in %.0f s: val accuracy %.4f", name, metrics["seconds"], metrics["val/student/accuracy"])


def select(cfg: DictConfig, trainer: pl.Trainer, module: DistillationModule) -> dict[str, Any]:
    """Put the selected weights into the module and say which they are."""
    best = next((c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None)), None)
    path = getattr(best, "best_model_path", "")
    if cfg.selection == "best_val" and path:
        import torch

        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(checkpoint["state_dict"])
        epoch = checkpoint["epoch"] + 1
        text = f"epoch {epoch} of {trainer.current_epoch}, the best {cfg.monitor}"
        return {"rule": "best_val", "monitor": cfg.monitor, "epoch": epoch, "text": text}
    return {"rule": "last", "epoch": trainer.current_epoch, "text": f"epoch {trainer.current_epoch}, the last"}


def measured(experiment: Experiment, trainer: pl.Trainer, test: bool) -> dict[str, float]:
    """Preflight, and the selected weights on val and (once) on test."""
    module = experiment.module
    metrics: dict[str, float] = {}
    if module.preflight is not None:
        found = module.preflight.metrics
        metrics |= {f"preflight/{name}": value for name, value in found.items() if "/" in name}
        if "calibration_temperature" in found:
            metrics["calibration_temperature"] = found["calibration_temperature"]
    trainer.validate(module, datamodule=experiment.datamodule, verbose=False)
    metrics |= {f"val/{name}": value for name, value in module.val_metrics.items()}
    if test:
        trainer.test(module, datamodule=experiment.datamodule, verbose=False)
        metrics |= {f"test/{name}": value for name, value in module.test_metrics.items()}
    metrics["images_per_second"] = module.telemetry.images_per_second
    return metrics


def parameters(experiment: Experiment) -> dict[str, float]:
    """How large the networks are."""
    counts = {"student/parameters": float(experiment.module.distiller.student.num_parameters)}
    if experiment.teacher is not None:
        counts["teacher/parameters"] = float(experiment.teacher.num_parameters)
    return counts


def evaluate(cfg: DictConfig, folder: RunFolder, split: SplitName) -> dict[str, float]:
    """Metrics of a finished run's selected student (and its teacher) on a split, exactly as the run measured them."""
    parts = build.parts(cfg)
    teacher_file: Path | None = None
    card: dict[str, Any] = {}
    if cfg.teacher is not None:
        card = folder.read("teacher.json")
        teacher_file = Path(card["weights"]) if card["weights"] else None
    splits = carve_splits(cfg, read(parts))
    shown = {**splits, "test": splits[split]}
    experiment = assemble(cfg, parts, shown, teacher_file)
    weights.load(experiment.module.distiller.student.model, folder.student)
    if experiment.teacher is not None:
        if experiment.teacher.fingerprint != card["sha256"]:
            raise ConfigError(f"{teacher_file} is not the teacher that this run was distilled from: its weights differ")
        experiment.teacher.calibration_temperature = card["calibration_temperature"]
    trainer = make_trainer(cfg, folder, callbacks=[], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.test(experiment.module, datamodule=experiment.datamodule, verbose=False)
    metrics = {f"{split}/{name}": value for name, value in experiment.module.test_metrics.items()} | parameters(experiment)
    if trainer.is_global_zero:
        show(metrics, pixels(cfg), split, f"{cfg.name} · {split}", str(folder.path))
    return metrics
