"""The learning rate in proportion to the images of an optimizer step."""

from __future__ import annotations

from kdx.config.errors import ConfigError
from kdx.config.schema import Node, RunConfig


def optimizer_for_batch(config: RunConfig) -> Node:
    """Return the node of the optimizer with lr · images per step / lr_batch_size (Goyal et al. 2017, arXiv:1706.02677).

    The number of processes does not count: data.batch_size is that of all of them together. Without lr_batch_size, the node
    is as in the config. ConfigError if there is no lr to scale.
    """
    if config.lr_batch_size is None:
        return config.optimizer
    lr = config.optimizer.get("lr")
    if lr is None:
        raise ConfigError("lr_batch_size scales optimizer.lr, which is not set: use optimizer.lr=VALUE, or lr_batch_size=null")
    images = config.data.batch_size * (config.trainer.get("accumulate_grad_batches") or 1)
    return {**config.optimizer, "lr": lr * images / config.lr_batch_size}
