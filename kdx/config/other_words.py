"""Names that other tools and kdx 0.1 use for the keys of kdx."""

from __future__ import annotations

from collections.abc import Mapping

# A name in other tools, and the key in kdx. {} is replaced by the value; without it, "=VALUE" is appended.
KEYS: Mapping[str, str] = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr"), "optimizer.lr"),
    **dict.fromkeys(("weight_decay", "wd"), "optimizer.weight_decay"),
    "momentum": "optimizer.momentum",
    **dict.fromkeys(("opt", "optim", "optimiser"), "optimizer"),
    **dict.fromkeys(("epochs", "max_epochs", "num_epochs", "n_epochs", "max_epoch", "epoch"), "trainer.max_epochs"),
    **dict.fromkeys(("steps", "max_steps", "num_steps", "iterations"), "trainer.max_steps"),
    **dict.fromkeys(("batch_size", "batch", "bs", "train_batch_size"), "data.batch_size"),
    **dict.fromkeys(("workers", "num_workers", "n_workers"), "data.num_workers"),
    **dict.fromkeys(("dataset", "datamodule", "dataset_name"), "data"),
    **dict.fromkeys(("data_dir", "data_path", "root", "data_root", "dataset_dir", "dataset_path"), "data.root"),
    **dict.fromkeys(("num_classes", "n_classes", "classes"), "data.num_classes"),
    **dict.fromkeys(("train_size", "num_train"), "data.train_size"),
    **dict.fromkeys(("img_size", "image_size", "input_size", "imgsz"), "resolution.student"),
    "teacher_resolution": "resolution.teacher",
    "student_resolution": "resolution.student",
    **dict.fromkeys(("arch", "model", "architecture", "student_model", "student_arch", "network", "net"), "network@student"),
    **dict.fromkeys(("teacher_model", "teacher_arch", "teacher_network"), "network@teacher.network"),
    **dict.fromkeys(("teacher_ckpt", "teacher_checkpoint", "teacher_path", "teacher_weights", "path_t"), "teacher.checkpoint"),
    **dict.fromkeys(("pretrained", "student_pretrained"), "student.pretrained"),
    **dict.fromkeys(("T", "tau", "temp", "kd_T", "kd_temperature"), "temperature.value"),
    **dict.fromkeys(("loss", "criterion", "distill_loss"), "losses=[{}]"),
    **dict.fromkeys(("alpha", "kd_weight", "kl_weight", "lambda_kd", "kd_ratio"), "losses.kl.weight"),
    **dict.fromkeys(("beta", "gamma", "ce_weight", "cls_weight", "lambda_ce"), "losses.ce.weight"),
    **dict.fromkeys(("label_smoothing", "smoothing"), "losses.ce.loss.label_smoothing"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "sched", "schedule"), "lr_schedule"),
    **dict.fromkeys(("warmup", "warmup_epochs"), "lr_schedule.warmup_epochs"),
    "warmup_steps": "lr_schedule.warmup_steps",
    "aug": "augmentation",
    **dict.fromkeys(("mixup", "cutmix"), "mixing"),
    **dict.fromkeys(("gpus", "num_gpus", "n_gpus", "devices", "nproc_per_node"), "trainer.devices"),
    **dict.fromkeys(("device", "accelerator"), "trainer.accelerator"),
    **dict.fromkeys(("precision", "amp", "fp16", "bf16"), "trainer.precision"),
    **dict.fromkeys(("grad_clip", "clip_grad", "gradient_clip", "max_grad_norm"), "trainer.gradient_clip_val"),
    **dict.fromkeys(("grad_accum", "accumulate", "gradient_accumulation_steps"), "trainer.accumulate_grad_batches"),
    **dict.fromkeys(("output_dir", "save_dir", "out_dir", "log_dir", "logdir", "output", "save_path"), "hydra.run.dir"),
    **dict.fromkeys(("resume", "resume_from", "resume_from_checkpoint", "ckpt"), "ckpt_path"),
    **dict.fromkeys(("exp", "exp_name", "run_name", "experiment_name"), "name"),
    "random_seed": "seed",
    **dict.fromkeys(("log", "loggers"), "logger"),
    **dict.fromkeys(("use_wandb", "wandb"), "logger=wandb"),
    **dict.fromkeys(("control",), "baseline"),  # 0.1
    **dict.fromkeys(("controls",), "baselines"),  # 0.1
}
# Launchers of Hydra that are packages of their own, and what to install.
PLUGINS: Mapping[str, str] = {
    "joblib": "kdx[joblib]",
    **dict.fromkeys(("submitit_slurm", "submitit_local"), "kdx[slurm]"),
    "ray": "hydra-ray-launcher",
}
# Settings of other tools that kdx does not have, and what there is instead.
UNSUPPORTED: Mapping[str, str] = {
    **dict.fromkeys(
        ("compile", "torch_compile", "torchcompile"),
        "for torch.compile, use compile=teacher or compile=both",
    ),
    **dict.fromkeys(
        ("channels_last", "memory_format"),
        "speed=safe, the default, chooses channels_last where it is faster",
    ),
    **dict.fromkeys(("swa", "stochastic_weight_avg"), "for an average of the weights, use callbacks=ema"),
    **dict.fromkeys(("ema", "model_ema", "ema_decay"), "use callbacks=ema, with callbacks.ema.decay=VALUE"),
    **dict.fromkeys(("early_stopping", "early_stop"), "kdx trains trainer.max_epochs=N epochs and selects the best one"),
}
# Groups that users give a number, and the key that accepts it: temperature=4 is temperature.value=4.
NUMBERS: Mapping[str, str] = {"temperature": "temperature.value", "trainer": "trainer.max_epochs"}
# Options that were renamed since 0.1.
OPTIONS: Mapping[tuple[str, str], str] = {
    ("temperature", "apart"): "per_network",
    ("temperature", "standardised"): "standardized",
}
# Modules and classes that were renamed since 0.1, which the config.yaml of older runs contains.
TARGETS: Mapping[str, str] = {
    "kdx.training.schedules": "kdx.training.optimizers.schedules",
    "kdx.training.shampoo": "kdx.training.optimizers.shampoo",
    "kdx.training.optimizers.big_vision_adam": "kdx.training.optimizers.functions.big_vision_adam",
    "kdx.training.optimizers.kron": "kdx.training.optimizers.functions.kron",
    "kdx.temperatures.apart.PerNetwork": "kdx.temperatures.per_network.PerNetwork",
    "kdx.temperatures.apart.Standardised": "kdx.temperatures.per_network.Standardized",
    "kdx.data.folders.UnlabelledImages": "kdx.data.folders.UnlabeledImages",
}


def key_for(word: str, value: str | None = None) -> str | None:
    """Return the override KEY=VALUE of kdx for a name in other tools; None if the name is not in the table.

    Args:
        word: A key, such as "lr" or "trainer.epochs"; of a path, the parent must match as well.
        value: The value of the key; None gives "...".
    """
    parent, _, last = word.rpartition(".")
    key = KEYS.get(last)
    if key is None or (parent and not key.startswith(f"{parent}.")):
        return None
    if "{}" in key:
        return key.format(value or "...")
    return key if "=" in key else f"{key}={value or '...'}"


def target_for(target: str) -> str | None:
    """Return the current name of a module or class of 0.1; None if the name has not changed."""
    for old, new in TARGETS.items():
        if target == old or target.startswith(f"{old}."):
            return new + target[len(old) :]
    return None
