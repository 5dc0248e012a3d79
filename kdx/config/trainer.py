"""Settings of Lightning's trainer and callbacks that contradict how kdx trains, found before Lightning is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from kdx.config.errors import ConfigError
from kdx.config.schema import AUTO, Precision

PRECISIONS: tuple[str, ...] = get_args(Precision)
SYNONYMS = ("32", "16", "bf16")  # Lightning's short names of PRECISIONS
# Arguments of the trainer that kdx sets itself, and the key to use.
SET_BY_KDX: Mapping[str, str] = {
    "logger": "use logger=OPTION",
    "callbacks": "use callbacks=OPTION, or +callbacks.NAME={_target_: ...}",
    "plugins": "use trainer.strategy and trainer.precision",
    "default_root_dir": "use hydra.run.dir=FOLDER",
    "use_distributed_sampler": "kdx distributes the images itself",
    "fast_dev_run": "use debug=fdr",
    "reload_dataloaders_every_n_epochs": "kdx shuffles anew in every epoch",
}
# Callbacks of Lightning that change how long a run trains or which weights it selects.
CALLBACKS: Mapping[str, str] = {
    "StochasticWeightAveraging": "changes the number of epochs and the selected weights: use callbacks=ema",
    "WeightAveraging": "replaces the selected weights: use callbacks=ema",
    "EMAWeightAveraging": "replaces the selected weights: use callbacks=ema",
    "BatchSizeFinder": "changes the batch size: set data.batch_size",
    "LearningRateFinder": "changes the learning rate: sweep it with -m optimizer.lr=0.001,0.01",
}
CHECKPOINTS = ("Best", "Last", "ModelCheckpoint")  # callbacks that write them
LIMITS = {
    "train": "expected a number from 1, or a share up to 1.0; null for all batches",
    "val": "val selects the weights; expected a number from 1, or a share up to 1.0; null for all batches",
    "test": "to omit the test, use test=false",
}


def check_trainer(trainer: Mapping[str, Any], path: str = "trainer") -> None:
    """Raise ConfigError if the arguments of the trainer give no training, one without end, or one that kdx does not support."""
    for key, remedy in SET_BY_KDX.items():
        if trainer.get(key) is not None:
            raise ConfigError(f"{path}.{key} is set by kdx: {remedy}")
    _check_length(trainer, path)
    for split, expected in LIMITS.items():
        key = f"limit_{split}_batches"
        limit = trainer.get(key)
        if isinstance(limit, (int, float)) and (limit <= 0 or (isinstance(limit, float) and limit > 1)):
            raise ConfigError(f"{path}.{key}={limit}: {expected}")
    precision = trainer.get("precision")
    if precision is not None and str(precision) not in (*PRECISIONS, *SYNONYMS):
        raise ConfigError(f"{path}.precision={precision} is not supported; available: {', '.join(PRECISIONS)}")
    if trainer.get("val_check_interval") not in (None, 1.0):
        raise ConfigError(
            f"{path}.val_check_interval={trainer['val_check_interval']}: kdx validates at the end of epochs; "
            f"use {path}.check_val_every_n_epoch=N"
        )


def _check_length(trainer: Mapping[str, Any], path: str) -> None:
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if isinstance(steps, int) and steps != -1 and steps < 1:
        raise ConfigError(f"{path}.max_steps={steps} trains nothing; expected 1 or more, or -1 for {path}.max_epochs alone")
    if isinstance(epochs, int) and epochs != -1 and epochs < 1:
        raise ConfigError(f"{path}.max_epochs={epochs} trains nothing; expected 1 or more, or -1 with {path}.max_steps=N")
    if epochs in (None, -1) and steps in (None, -1):
        value = "null" if epochs is None else epochs
        raise ConfigError(f"{path}.max_epochs={value} trains without end: set {path}.max_epochs=N, or {path}.max_steps=N too")
    every = trainer.get("check_val_every_n_epoch", 1)
    if every != AUTO and (not isinstance(every, int) or every < 1):
        value = "null" if every is None else every
        raise ConfigError(f"{path}.check_val_every_n_epoch={value}: val selects the weights; expected 1 or more, or auto")
    if isinstance(every, int) and isinstance(epochs, int) and 0 < epochs < every:
        raise ConfigError(
            f"{path}.check_val_every_n_epoch={every} never validates in {path}.max_epochs={epochs}; expected 1 to {epochs}"
        )


def check_processes(trainer: Mapping[str, Any], started: int) -> None:
    """Raise ConfigError if torchrun, srun or the like started another number of processes than the trainer is to have.

    Each of them would train on its own, and they would write to the same folder.
    """
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    per_node = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else None
    if started > 1 and per_node is not None and per_node * nodes != started:
        raise ConfigError(
            f"{started} processes were started together (torchrun, srun), and trainer.devices={per_node} with "
            f"trainer.num_nodes={nodes} has {per_node * nodes}: set trainer.devices to the number of processes on each node"
        )


def check_callbacks(callbacks: Mapping[str, Any] | None, trainer: Mapping[str, Any]) -> None:
    """Raise ConfigError for a callback of Lightning that kdx does not support, or that the trainer excludes."""
    for name, node in (callbacks or {}).items():
        target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
        callback = target.rpartition(".")[2]
        if target.startswith("pytorch_lightning.") and callback in CALLBACKS:
            raise ConfigError(f"callbacks.{name}: {callback} {CALLBACKS[callback]}")
        if callback in CHECKPOINTS and trainer.get("enable_checkpointing") is False:
            raise ConfigError(
                f"trainer.enable_checkpointing=false excludes callbacks.{name}: for no checkpoints, "
                "use callbacks=none selection=last"
            )
