"""Contradictions between the parts of a run, which are found before data is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.networks.compiled import missing_compiler

if TYPE_CHECKING:
    from kdx.experiment.build import Parts


def check_source(parts: Parts) -> None:
    """Raise ConfigError if the data set has one class, or other channels than the config says."""
    name, channels = type(parts.source).__name__, parts.config.data.channels
    if channels is not None and channels != parts.source.channels:
        raise ConfigError(
            f"data.channels={channels}, but {name} has {parts.source.channels}: remove data.channels, which is for "
            "images in folders"
        )
    if parts.num_classes < 2:
        raise ConfigError(f"Need at least 2 classes, found {parts.num_classes} in {name}: use data with more classes")


def check_jpeg_px(config: RunConfig) -> None:
    """Raise ConfigError if JPEGs would be decoded with fewer pixels than a network sees."""
    most = max(*config.student_resolutions, config.resolution.teacher, *config.other_resolutions)
    if config.data.jpeg_px is not None and config.data.jpeg_px < most:
        raise ConfigError(
            f"data.jpeg_px={config.data.jpeg_px} is smaller than the {most} px that a network sees: use "
            f"data.jpeg_px={2 * most}, which leaves enough pixels to a crop of a quarter of the image"
        )


def check_terms(parts: Parts) -> None:
    """Raise ConfigError if a loss lacks what it needs, or if no loss uses the teacher or the peers."""
    config, objective = parts.config, parts.objective
    teacher_losses, temperature_losses = objective.needs_teacher, objective.needs_temperature
    if teacher_losses and config.teacher is None and config.peers is None:
        raise ConfigError(f"losses.{teacher_losses[0]} needs a teacher, but teacher=none: use losses=[ce], or teacher=online")
    if temperature_losses and parts.temperature is None:
        raise ConfigError(f"losses.{temperature_losses[0]} needs a distillation temperature: use temperature=constant")
    label_losses = objective.needs_label
    if label_losses and not parts.source.train_labels:
        raise ConfigError(f"losses.{label_losses[0]} needs labels, but the data set is unlabeled: use losses=[kl]")
    one_label_losses = objective.needs_one_label
    if one_label_losses and parts.mixing is not None:
        raise ConfigError(f"losses.{one_label_losses[0]} needs one class per image, but mixing gives two: use mixing=none")
    if config.teacher is not None and not teacher_losses:
        raise ConfigError(
            "No loss uses the teacher: use losses=[kl], or teacher=none. Your own loss sets needs_teacher = True if it does"
        )
    if config.peers is not None and not teacher_losses:
        raise ConfigError("No loss uses the peers: use losses=[kd], or peers=none")
    of_teacher = [name for name, term in objective.terms.items() if term.loss.teacher_features]
    of_any = [name for name, term in objective.terms.items() if term.loss.teacher_features or term.loss.student_features]
    if of_any and config.peers is not None:
        raise ConfigError(f"losses.{of_any[0]} reads features of the student, which peers do not have: use peers=none")
    if of_teacher and config.is_ensemble:
        raise ConfigError(f"losses.{of_teacher[0]} compares features, which needs one teacher: use teacher=online")
    stored = getattr(parts.policy, "teacher_crops", 1) > 1
    if stored and of_teacher:
        raise ConfigError(f"losses.{of_teacher[0]} needs features, but a stored teacher has only logits: use views=ind_ic")
    if stored and not parts.teacher_is_stored:
        raise ConfigError(
            "Stored teacher crops need a teacher with constant logits per image: "
            "use augmentation=none, and combine=logits or probs in an ensemble"
        )


def check_compile(parts: Parts) -> None:
    """Raise ConfigError if networks are to be compiled that are not there, that are looked into, or without a compiler."""
    config = parts.config
    if config.compile is None:
        return
    if config.compile == "teacher" and config.teacher is None:
        raise ConfigError("compile=teacher, but there is no teacher: use compile=both for the students, or compile=null")
    without = "speed=safe" if config.speed == "max" else "compile=null"
    rounding = [name for name, node in (config.callbacks or {}).items() if str(node.get("_target_")).endswith(".Quantization")]
    if rounding and config.compile == "both":
        raise ConfigError(f"callbacks.{rounding[0]} rounds inside the student: use compile=teacher instead of both")
    features = [*parts.objective.student_features, *parts.objective.teacher_features]
    if features:
        raise ConfigError(
            f"compile={config.compile}: a loss needs {features[0]} of a network, which is compiled as a whole: use {without}"
        )
    on_gpu = config.trainer.get("accelerator") in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    lacks = missing_compiler("cuda" if on_gpu else "cpu")
    if lacks is not None:
        raise ConfigError(f"compile={config.compile}: {lacks}; or use {without}")


def check_devices(config: RunConfig) -> None:
    """Raise ConfigError if the trainer wants devices that this machine lacks."""
    devices, accelerator = config.trainer.get("devices"), config.trainer.get("accelerator")
    gpus = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not gpus:
        raise ConfigError("trainer.accelerator=gpu, but this machine has no GPU: use trainer=cpu")
    if isinstance(devices, int) and (accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus)) and devices > gpus:
        raise ConfigError(f"trainer.devices={devices}, but this machine has {gpus} GPUs; expected 1 to {gpus}")
    if isinstance(devices, int) and accelerator == "auto" and not gpus and devices > 1:
        raise ConfigError(f"trainer.devices={devices}, but this machine has no GPU: use trainer=ddp trainer.accelerator=cpu")
